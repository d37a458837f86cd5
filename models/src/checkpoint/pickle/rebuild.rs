//! The values that PyTorch's calls and persistent ids describe. Nothing is called.

use super::machine::{DIMENSIONS, Machine};
use super::value::{Global, Id, Value};
use crate::checkpoint::view::{Storage, View};

type Result<T> = std::result::Result<T, String>;

/// A longer key than any storage has.
const KEY: usize = 64;

impl Machine<'_> {
    /// The storage that a persistent id describes: ('storage', class, key, place, length), with a `None` at the
    /// end before PyTorch 1.6. One of a type that no network has is passed over as an object of its class.
    pub(super) fn storage(&self, id: Id) -> Result<Value> {
        let items = self.items(id)?;
        let (&[tag, class, key, _, length], view) = items
            .split_first_chunk::<5>()
            .ok_or("a storage without its five parts")?;
        let plain = view.len() <= 1 && view.iter().all(|&id| matches!(self.value(id), Value::Opaque));
        if self.text(tag)? != "storage" || !plain {
            return Err("a persistent value that is not a whole storage".into());
        }
        let element = match self.value(class) {
            Value::Global(Global::Storage(element)) => *element,
            Value::Global(Global::Foreign(_)) => return Ok(Value::Object(class)),
            _ => return Err("a storage without the type of its numbers".into()),
        };
        let key = self.text(key)?;
        if key.len() > KEY {
            return Err(format!("a storage whose key is {} bytes long", key.len()));
        }
        Ok(Value::Storage(Storage {
            key: key.to_string(),
            element,
            length: self.size(length)?,
        }))
    }

    /// Pushes the value that a call of a global describes: the tensor or dictionary that PyTorch would make, or an
    /// object that is passed over.
    pub(super) fn rebuild(&mut self, called: Id, arguments: Id) -> Result<()> {
        let global = match self.value(called) {
            Value::Global(Global::Foreign(_)) | Value::Object(_) => {
                self.push(Value::Object(called));
                return Ok(());
            }
            Value::Global(global) => global.clone(),
            _ => return Err("a call of something that is not a global".into()),
        };
        let items = self.items(arguments)?;
        let items = items[..items.len().min(8)].to_vec();
        let value = match (global, &items[..]) {
            (Global::FromType, [inner, _class, inner_arguments, _attributes]) => {
                let inner = match self.value(*inner) {
                    Value::Global(inner @ (Global::Tensor | Global::Parameter)) => inner.clone(),
                    Value::Global(Global::Foreign(_)) => {
                        let object = Value::Object(*inner);
                        self.push(object);
                        return Ok(());
                    }
                    _ => return Err("a tensor of a class without the tensor".into()),
                };
                let items = self.items(*inner_arguments)?;
                let items = items[..items.len().min(8)].to_vec();
                self.rebuilt(inner, &items)?
            }
            (global, items) => self.rebuilt(global, items)?,
        };
        self.push(value);
        Ok(())
    }

    fn rebuilt(&mut self, global: Global, items: &[Id]) -> Result<Value> {
        match (global, items) {
            (Global::OrderedDict, []) => Ok(Value::Dict(Vec::new())),
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
                Ok(Value::Dict(entries))
            }
            (Global::Tensor, [storage, offset, shape, strides, ..]) => self.view(*storage, [*offset, *shape, *strides]),
            (Global::Parameter | Global::ParameterClass, [tensor, ..]) => match self.value(*tensor) {
                value @ (Value::Tensor(_) | Value::Object(_)) => Ok(value.clone()),
                _ => Err("a parameter without a tensor".into()),
            },
            (Global::Size, [sizes]) => {
                let sizes = self.items(*sizes)?;
                Ok(Value::Tuple(sizes[..sizes.len().min(DIMENSIONS)].to_vec()))
            }
            _ => Err("a call that `torch.save` does not make".into()),
        }
    }

    /// A tensor of a storage, or what stands for one whose numbers are of a type that no network has.
    fn view(&self, storage: Id, [offset, shape, strides]: [Id; 3]) -> Result<Value> {
        let storage = match self.value(storage) {
            Value::Storage(storage) => storage,
            object @ Value::Object(_) => return Ok(object.clone()),
            _ => return Err("a tensor without a storage".into()),
        };
        let view = View {
            storage: storage.clone(),
            offset: self.size(offset)?,
            shape: self.sizes(shape)?,
            strides: self.sizes(strides)?,
        };
        if view.shape.len() != view.strides.len() {
            return Err(format!(
                "a tensor of {} dimensions with {} strides",
                view.shape.len(),
                view.strides.len()
            ));
        }
        Ok(Value::Tensor(view))
    }
}
