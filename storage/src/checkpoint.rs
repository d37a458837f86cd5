//! Checkpoints: named f32 tensors and a description of them, as safetensors.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files;

/// The one metadata entry, a JSON object. One entry, so that equal content is equal bytes.
const METADATA: &str = "rampart";

/// Writes named f32 tensors and a description of them, as one of the files of a cell.
///
/// # Errors
/// If the file cannot be written.
pub fn save(file: &Path, tensors: &BTreeMap<String, Tensor>, about: &impl Serialize) -> Result<()> {
    files::write_part(file, &bytes(tensors, about)?)
}

/// The bytes that [`save`] writes.
///
/// # Errors
/// If a tensor cannot be read from its device.
pub fn bytes(tensors: &BTreeMap<String, Tensor>, about: &impl Serialize) -> Result<Vec<u8>> {
    let mut buffers = Vec::new();
    for (name, tensor) in tensors {
        let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        buffers.push((name, tensor.dims().to_vec(), bytes));
    }
    let views = buffers.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many bytes as the shape needs");
        (name.as_str(), view)
    });
    let metadata = [(METADATA.to_string(), serde_json::to_string(about)?)].into();
    Ok(safetensors::serialize(views, Some(metadata))?)
}

/// Reads what [`save`] wrote.
///
/// # Errors
/// If the file is truncated, damaged or foreign.
pub fn load<T: DeserializeOwned>(file: &Path, device: &Device) -> Result<(BTreeMap<String, Tensor>, T)> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read the checkpoint {}", file.display()))?;
    parse(&bytes, device).with_context(|| damaged(file))
}

/// What is wrong with a file that cannot be parsed, and what to do.
pub fn damaged(file: &Path) -> String {
    format!(
        "{} is truncated, damaged or foreign; delete its folder and run again to compute it again",
        file.display()
    )
}

/// The same out of bytes.
///
/// # Errors
/// If they are truncated, damaged or foreign.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], device: &Device) -> Result<(BTreeMap<String, Tensor>, T)> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let about = header.metadata().as_ref().and_then(|entries| entries.get(METADATA));
    let about = serde_json::from_str(about.context("not written by this program")?)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in SafeTensors::deserialize(bytes)?.tensors() {
        if view.dtype() != Dtype::F32 {
            bail!("`{name}` is {:?}, not F32", view.dtype());
        }
        let sizes = view.shape().iter().filter(|size| **size > 0);
        if sizes.copied().try_fold(4usize, usize::checked_mul).is_none() {
            bail!("`{name}` is {:?}, more than memory could hold", view.shape());
        }
        let values: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        tensors.insert(name, Tensor::from_vec(values, view.shape(), device)?);
    }
    Ok((tensors, about))
}

/// A description with the digest of everything in its file, for files that no `status.json` vouches for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<T> {
    about: T,
    blake3: String,
}

/// As [`save`], for [`load_sealed`], and forced to disk at once with everything in the folder.
///
/// # Errors
/// If the file cannot be written.
pub fn save_sealed(file: &Path, tensors: &BTreeMap<String, Tensor>, about: &impl Serialize) -> Result<()> {
    let blake3 = digest(tensors, about)?;
    let folder = file.parent().expect("a file is in a folder");
    // First what it builds on, such as the best checkpoint so far.
    files::force(folder)?;
    files::write(file, &bytes(tensors, &Sealed { about, blake3 })?)
}

/// Reads what [`save_sealed`] wrote.
///
/// # Errors
/// If any of it has changed since.
pub fn load_sealed<T: Serialize + DeserializeOwned>(
    file: &Path,
    device: &Device,
) -> Result<(BTreeMap<String, Tensor>, T)> {
    let (tensors, Sealed { about, blake3 }): (_, Sealed<T>) = load(file, device)?;
    anyhow::ensure!(
        digest(&tensors, &about)? == blake3,
        "{} has changed since it was written",
        file.display()
    );
    Ok((tensors, about))
}

/// BLAKE3 over names, shapes and values of tensors and over what describes them.
///
/// # Errors
/// If a tensor cannot be read from its device.
pub fn digest(tensors: &BTreeMap<String, Tensor>, about: &impl Serialize) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&serde_json::to_vec(about)?);
    for (name, tensor) in tensors {
        hasher.update(format!("\n{name} {:?}\n", tensor.dims()).as_bytes());
        let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The tensors whose names begin with `prefix`, without it.
pub fn part(tensors: &BTreeMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    let named = tensors
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor.clone())));
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("it.safetensors");
        let tensor = Tensor::from_vec(vec![1f32, 2., 3., 4., 5., 6.], (2, 3), &Device::Cpu).unwrap();
        let tensors = BTreeMap::from([("model.w".to_string(), tensor)]);
        save(&file, &tensors, &7u32).unwrap();
        let (loaded, about): (_, u32) = load(&file, &Device::Cpu).unwrap();
        assert_eq!(about, 7);
        assert_eq!(
            part(&loaded, "model.")["w"].to_vec2::<f32>().unwrap(),
            [[1., 2., 3.], [4., 5., 6.]]
        );

        save_sealed(&file, &tensors, &7u32).unwrap();
        assert_eq!(load_sealed::<u32>(&file, &Device::Cpu).unwrap().1, 7);
        let bytes = std::fs::read(&file).unwrap();
        for place in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1;
            std::fs::write(&file, &flipped).unwrap();
            assert!(load_sealed::<u32>(&file, &Device::Cpu).is_err(), "byte {place}");
        }
        for length in 0..bytes.len() {
            std::fs::write(&file, &bytes[..length]).unwrap();
            let error = load::<u32>(&file, &Device::Cpu).unwrap_err();
            assert!(
                format!("{error:#}").contains("it.safetensors is truncated"),
                "{length}: {error:#}"
            );
        }
    }
}
