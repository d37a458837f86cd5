//! The values that a pickle can build.

use crate::checkpoint::element::Element;
use crate::checkpoint::view::{Storage, View};

type Result<T> = std::result::Result<T, String>;

/// A value, by its place in a [`Pickle`].
pub(in crate::checkpoint) type Id = u32;

/// What a pickle built.
#[derive(Debug)]
pub(in crate::checkpoint) struct Pickle {
    pub(super) values: Vec<Value>,
    /// The value that was left at the end.
    pub(in crate::checkpoint) root: Id,
}

/// A plain value.
#[derive(Debug, Clone)]
pub(in crate::checkpoint) enum Value {
    /// `None`, bytes, sets, and numbers too long: not needed.
    Opaque,
    Bool(bool),
    Int(i128),
    Float,
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(View),
}

/// The globals that a pickle may name. None is ever called; each describes a kind of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::checkpoint) enum Global {
    OrderedDict,
    Tensor,
    Parameter,
    Size,
    Storage(Element),
}

impl Global {
    /// The allow-list.
    pub(super) fn named(module: &str, name: &str) -> Result<Self> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::Tensor,
            ("torch._utils", "_rebuild_parameter") => Self::Parameter,
            ("torch", "Size") => Self::Size,
            ("torch", "DoubleStorage") => Self::Storage(Element::F64),
            ("torch", "FloatStorage") => Self::Storage(Element::F32),
            ("torch", "HalfStorage") => Self::Storage(Element::F16),
            ("torch", "BFloat16Storage") => Self::Storage(Element::BF16),
            ("torch", "LongStorage") => Self::Storage(Element::I64),
            ("torch", "IntStorage") => Self::Storage(Element::I32),
            ("torch", "ShortStorage") => Self::Storage(Element::I16),
            ("torch", "CharStorage") => Self::Storage(Element::I8),
            ("torch", "ByteStorage" | "BoolStorage") => Self::Storage(Element::U8),
            _ => {
                let global = clip(&format!("{module}.{name}"));
                return Err(format!(
                    "its pickle wants the global `{global}`, which is neither a tensor nor an ordered dictionary, and nothing of a \
                     pickle is executed here; save `model.state_dict()` alone"
                ));
            }
        })
    }
}

/// Text from a file, shortened and without control characters.
fn clip(text: &str) -> String {
    let mut short: String = text.chars().take(120).flat_map(char::escape_debug).collect();
    if short.len() < text.len() && text.chars().count() > 120 {
        short.push('…');
    }
    short
}

impl Pickle {
    pub(in crate::checkpoint) fn get(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    /// Every storage that is referred to.
    pub(in crate::checkpoint) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }
}
