//! safetensors.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensors};

use super::contents::{Checkpoint, Format};
use super::element::Element;

/// Every tensor of a file, and the text of its header.
pub(super) fn load(bytes: &[u8]) -> Result<Checkpoint, String> {
    let damaged = |error| format!("it is truncated or damaged safetensors ({error}); copy it again");
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let element = match view.dtype() {
            Dtype::F64 => Element::F64,
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::BF16,
            Dtype::I64 => Element::I64,
            Dtype::I32 => Element::I32,
            Dtype::I16 => Element::I16,
            Dtype::I8 => Element::I8,
            Dtype::U8 | Dtype::BOOL => Element::U8,
            other => {
                return Err(format!(
                    "`{name}` holds numbers of type {other:?}, which no network has"
                ));
            }
        };
        let tensor = element
            .tensor(view.data(), view.shape())
            .map_err(|problem| format!("`{name}`: {problem}"))?;
        tensors.insert(name.to_string(), tensor);
    }
    let metadata = header.metadata().iter().flatten();
    Ok(Checkpoint {
        metadata: metadata.map(|(key, text)| (key.clone(), text.clone())).collect(),
        ..Checkpoint::flat(Format::Safetensors, tensors)
    })
}
