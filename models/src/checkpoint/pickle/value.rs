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
    /// What the call of this global would make. It is not made.
    Object(Id),
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

/// The globals that a pickle names. None is ever called; each describes a kind of value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::checkpoint) enum Global {
    OrderedDict,
    Tensor,
    Parameter,
    /// The class of parameters, which a call or a new object wraps around a tensor.
    ParameterClass,
    /// A tensor of a class, or with attributes: a call of another rebuilding, and its arguments.
    FromType,
    Size,
    Storage(Element),
    /// Any other, by its name: what is made with it is passed over.
    Foreign(String),
}

impl Global {
    /// The global of a name. Fails for those that a checkpoint never needs and that harm where they are called.
    pub(super) fn named(module: &str, name: &str) -> Result<Self> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Self::Tensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Self::Parameter,
            ("torch.nn.parameter" | "torch.nn", "Parameter") => Self::ParameterClass,
            ("torch._tensor", "_rebuild_from_type_v2") => Self::FromType,
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
            _ if runs_code(module, name) => {
                return Err(format!(
                    "its pickle names `{}`, which runs code where it is loaded; nothing of a pickle is executed here, but \
                     do not open this file elsewhere",
                    clip(&format!("{module}.{name}"))
                ));
            }
            _ => Self::Foreign(clip(&format!("{module}.{name}"))),
        })
    }
}

/// Whether a global runs code, reads files or fetches others, so that only an attacker puts it into a checkpoint. The
/// list is for the error message: nothing in a pickle is called here, listed or not, but other programs may call it.
fn runs_code(module: &str, name: &str) -> bool {
    const MODULES: &str = "os posix nt subprocess sys shutil pty socket runpy importlib ctypes code commands webbrowser \
                           pickle _pickle cPickle marshal urllib requests pip pdb bdb timeit cProfile profile";
    const BUILTINS: &str = "eval exec execfile compile open __import__ breakpoint apply";
    let lists = |list: &str, word: &str| list.split_whitespace().any(|listed| listed == word);
    match module.split('.').next().unwrap_or_default() {
        "__builtin__" | "builtins" => lists(BUILTINS, name),
        "torch" => (module == "torch" && name == "load") || module.starts_with("torch.hub"),
        first => lists(MODULES, first),
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

    /// The name of the global of which a value is, where it is neither plain nor a tensor.
    pub(in crate::checkpoint) fn foreign(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Global(Global::Foreign(name)) => Some(name),
            Value::Object(global) => match self.get(*global) {
                Value::Global(Global::Foreign(name)) => Some(name),
                _ => None,
            },
            _ => None,
        }
    }

    /// Every storage that is referred to.
    pub(in crate::checkpoint) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }
}
