//! The values that PyTorch's calls and persistent ids describe. Nothing is called.

use super::machine::{DIMENSIONS, Machine};
use super::value::{Global, Id, Value};
use crate::checkpoint::view::{Storage, View};

type Result<T> = std::result::Result<T, String>;

/// A longer key than any storage has.
const KEY: usize = 64;

impl Machine<'_> {
    /// The storage that a persistent id describes: ('storage', class, key, place, length), with a `None` at the
    /// end before PyTorch 1.6.
    pub(super) fn storage(&self, id: Id) -> Result<Storage> {
        let items = self.items(id)?;
        let (&[tag, class, key, _, length], view) = items
            .split_first_chunk::<5>()
            .ok_or("a storage without its five parts")?;
        let plain = view.len() <= 1 && view.iter().all(|&id| matches!(self.value(id), Value::Opaque));
        if self.text(tag)? != "storage" || !plain {
            return Err("a persistent value that is not a whole storage".into());
        }
        let Value::Global(Global::Storage(element)) = self.value(class) else {
            return Err("a storage without the type of its numbers".into());
        };
        let key = self.text(key)?;
        if key.len() > KEY {
            return Err(format!("a storage whose key is {} bytes long", key.len()));
        }
        Ok(Storage {
            key: key.to_string(),
            element: *element,
            length: self.size(length)?,
        })
    }

    /// Pushes the value that a call of a global describes.
    pub(super) fn rebuild(&mut self, global: Id, arguments: Id) -> Result<()> {
        let Value::Global(global) = *self.value(global) else {
            return Err("a call of something that is not a global".into());
        };
        let items = self.items(arguments)?;
        let items = items[..items.len().min(8)].to_vec();
        match (global, &items[..]) {
            (Global::OrderedDict, []) => self.push(Value::Dict(Vec::new())),
            // Python 2 gives the pairs at once.
            (Global::OrderedDict, [pairs]) => {
                let Value::List(pairs) = self.value(*pairs) else {
                    return Err("an ordered dictionary out of something that is not a list".into());
                };
                let entry = |&pair: &Id| match self.value(pair) {
                    Value::Tuple(pair) | Value::List(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
                    _ => Err("an ordered dictionary out of something that is not pairs".to_string()),
                };
                let entries = pairs.iter().map(entry).collect::<Result<Vec<_>>>()?;
                self.count(entries.len())?;
                self.push(Value::Dict(entries));
            }
            (Global::Tensor, [storage, offset, shape, strides, _, _] | [storage, offset, shape, strides, _, _, _]) => {
                let Value::Storage(storage) = self.value(*storage) else {
                    return Err("a tensor without a storage".into());
                };
                let view = View {
                    storage: storage.clone(),
                    offset: self.size(*offset)?,
                    shape: self.sizes(*shape)?,
                    strides: self.sizes(*strides)?,
                };
                if view.shape.len() != view.strides.len() {
                    return Err(format!(
                        "a tensor of {} dimensions with {} strides",
                        view.shape.len(),
                        view.strides.len()
                    ));
                }
                self.push(Value::Tensor(view));
            }
            (Global::Parameter, [tensor, _, _]) => {
                let Value::Tensor(view) = self.value(*tensor) else {
                    return Err("a parameter without a tensor".into());
                };
                let view = view.clone();
                self.push(Value::Tensor(view));
            }
            (Global::Size, [sizes]) => {
                let sizes = self.items(*sizes)?;
                let sizes = sizes[..sizes.len().min(DIMENSIONS)].to_vec();
                self.push(Value::Tuple(sizes));
            }
            _ => return Err("a call that `torch.save` does not make".into()),
        }
        Ok(())
    }
}
