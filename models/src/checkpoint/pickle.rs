//! A pickle as plain values.
//!
//! Source of the opcodes: Python's `pickletools`. The machine keeps every value once and passes numbers of
//! values around, so a reference costs nothing and values may refer to each other in any way without a
//! loop here. It makes at most one value per opcode, and what it copies is counted: memory is bounded by the
//! pickle's length.

use std::collections::HashMap;

use super::decode::Element;

type Result<T> = std::result::Result<T, String>;

/// A value, by its place in a [`Pickle`].
pub(super) type Id = u32;

/// What a pickle built.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    /// The value that was left at the end.
    pub(super) root: Id,
}

/// More dimensions than any tensor has, and a longer key than any storage has.
const DIMENSIONS: usize = 16;
const KEY: usize = 64;

/// A plain value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// `None`, bytes, sets, numbers too long: there, and of no interest.
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

/// What a pickle may name. Nothing here is ever called; each stands for a kind of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    Tensor,
    Parameter,
    Size,
    Storage(Element),
}

/// Numbers in a row, kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) key: String,
    pub(super) element: Element,
    /// How many numbers.
    pub(super) length: usize,
}

/// A tensor: numbers of a storage, by offset and strides counted in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl Global {
    /// The allow-list.
    fn named(module: &str, name: &str) -> Result<Self> {
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

/// Text out of a file, short and without control characters.
fn clip(text: &str) -> String {
    let mut short: String = text.chars().take(120).flat_map(char::escape_debug).collect();
    if short.len() < text.len() && text.chars().count() > 120 {
        short.push('…');
    }
    short
}

impl Pickle {
    pub(super) fn get(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    /// Every storage that is referred to.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }
}

/// Reads one pickle; returns what follows it.
pub(super) fn parse(bytes: &[u8]) -> Result<(Pickle, &[u8])> {
    let mut machine = Machine {
        input: Input { bytes, at: 0 },
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
    };
    loop {
        let at = machine.input.at;
        let located = |problem: String| match problem.starts_with("its pickle wants") {
            true => problem,
            false => format!("the pickle is damaged or foreign at byte {at}: {problem}"),
        };
        if let Some(root) = machine.step().map_err(located)? {
            let rest = &bytes[machine.input.at..];
            let values = machine.values;
            return Ok((Pickle { values, root }, rest));
        }
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or("it is cut short")?;
        self.at += length;
        Ok(taken)
    }

    /// An unsigned little-endian number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Result<u64> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(self.take(N)?);
        Ok(u64::from_le_bytes(wide))
    }

    /// Bytes after their length, itself a number of `N` bytes.
    fn counted<const N: usize>(&mut self) -> Result<&'a [u8]> {
        let length = self.number::<N>()?;
        self.take(usize::try_from(length).map_err(|_| "it is cut short")?)
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or("a line has no end")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a line is not text".to_string())
    }
}

struct Machine<'a> {
    input: Input<'a>,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Items copied from one value to another.
    copied: usize,
}

impl Machine<'_> {
    /// One opcode. Returns the result at the last.
    fn step(&mut self) -> Result<Option<Id>> {
        let [opcode] = *self.input.take(1)? else {
            unreachable!("one byte")
        };
        match opcode {
            // PROTO
            0x80 => {
                let protocol = self.input.number::<1>()?;
                if protocol > 5 {
                    return Err(format!("protocol {protocol} is not known"));
                }
            }
            // FRAME
            0x95 => {
                self.input.take(8)?;
            }
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => self.stack.push(self.top()?),
            b'N' => self.push(Value::Opaque),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            // INT, whose 00 and 01 are booleans
            b'I' => {
                let value = match self.input.line()? {
                    "00" => Value::Bool(false),
                    "01" => Value::Bool(true),
                    text => Value::Int(text.parse().map_err(|_| "a number is not a number")?),
                };
                self.push(value);
            }
            b'L' => {
                let text = self.input.line()?.trim_end_matches('L');
                let value = text.parse().map_or(Value::Opaque, Value::Int);
                self.push(value);
            }
            b'J' => {
                let value = self.input.number::<4>()? as u32 as i32;
                self.push(Value::Int(value.into()));
            }
            b'K' => {
                let value = self.input.number::<1>()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = self.input.number::<2>()?;
                self.push(Value::Int(value.into()));
            }
            // LONG1, LONG4
            0x8a => {
                let value = long(self.input.counted::<1>()?);
                self.push(value);
            }
            0x8b => {
                let value = long(self.input.counted::<4>()?);
                self.push(value);
            }
            b'F' => {
                self.input.line()?;
                self.push(Value::Float);
            }
            b'G' => {
                self.input.take(8)?;
                self.push(Value::Float);
            }
            // STRING, BINSTRING, SHORT_BINSTRING: text of Python 2
            b'S' => {
                let text = self.input.line()?.trim_matches(['\'', '"']).to_string();
                self.push(Value::Text(text));
            }
            b'T' => {
                let text = self.input.counted::<4>()?;
                self.push_text(text)?;
            }
            b'U' => {
                let text = self.input.counted::<1>()?;
                self.push_text(text)?;
            }
            // UNICODE, BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
            b'V' => {
                let text = self.input.line()?.to_string();
                self.push(Value::Text(text));
            }
            b'X' => {
                let text = self.input.counted::<4>()?;
                self.push_text(text)?;
            }
            0x8c => {
                let text = self.input.counted::<1>()?;
                self.push_text(text)?;
            }
            0x8d => {
                let text = self.input.counted::<8>()?;
                self.push_text(text)?;
            }
            // BINBYTES, SHORT_BINBYTES, BINBYTES8
            b'B' => {
                self.input.counted::<4>()?;
                self.push(Value::Opaque);
            }
            b'C' => {
                self.input.counted::<1>()?;
                self.push(Value::Opaque);
            }
            0x8e => {
                self.input.counted::<8>()?;
                self.push(Value::Opaque);
            }
            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items));
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push(Value::Tuple(items));
            }
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend(items)?;
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(Vec::new()));
                self.set(&items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }
            // EMPTY_SET, ADDITEMS, FROZENSET
            0x8f => self.push(Value::Opaque),
            0x90 => {
                self.pop_mark()?;
            }
            0x91 => {
                self.pop_mark()?;
                self.push(Value::Opaque);
            }
            b'g' => {
                let key = self.input.line()?.parse().map_err(|_| "a memo without a number")?;
                self.recall(key)?;
            }
            b'h' => {
                let key = self.input.number::<1>()?;
                self.recall(key)?;
            }
            b'j' => {
                let key = self.input.number::<4>()?;
                self.recall(key)?;
            }
            b'p' => {
                let key = self.input.line()?.parse().map_err(|_| "a memo without a number")?;
                self.remember(key)?;
            }
            b'q' => {
                let key = self.input.number::<1>()?;
                self.remember(key)?;
            }
            b'r' => {
                let key = self.input.number::<4>()?;
                self.remember(key)?;
            }
            // MEMOIZE
            0x94 => self.remember(self.memo.len() as u64)?,
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.push(Value::Global(Global::named(module, name)?));
            }
            // STACK_GLOBAL
            0x93 => {
                let names = self.pop_many(2)?;
                let (module, name) = (self.text(names[0])?, self.text(names[1])?);
                let global = Global::named(module, name)?;
                self.push(Value::Global(global));
            }
            // INST names a global as GLOBAL does, and calls it at once.
            b'i' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                Global::named(module, name)?;
                return Err("an opcode that calls a class".into());
            }
            b'R' | 0x81 => {
                let parts = self.pop_many(2)?;
                self.rebuild(parts[0], parts[1])?;
            }
            // BUILD: an ordered dictionary's attributes, such as `_metadata`.
            b'b' => {
                self.pop()?;
                let Value::Dict(_) = self.value(self.top()?) else {
                    return Err("attributes of something that is not a dictionary".into());
                };
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Value::Storage(storage));
            }
            other => return Err(format!("opcode {other:#04x} is not one that `torch.save` uses")),
        }
        Ok(None)
    }

    fn value(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
    }

    fn push_text(&mut self, bytes: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(bytes).map_err(|_| "text is not UTF-8")?;
        self.push(Value::Text(text.to_string()));
        Ok(())
    }

    /// The floor below which nothing may be taken: a mark guards what is under it.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id> {
        let top = (self.stack.len() > self.floor()).then(|| self.stack.last().copied());
        top.flatten().ok_or_else(|| "the stack is empty".to_string())
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        match self.stack.len() >= self.floor() + count {
            true => Ok(self.stack.split_off(self.stack.len() - count)),
            false => Err("the stack is empty".into()),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let height = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(height))
    }

    fn extend(&mut self, items: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(list) => list.extend(items),
            _ => return Err("items for something that is not a list".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<()> {
        let dict = self.top()?;
        let Value::Dict(entries) = &mut self.values[dict as usize] else {
            return Err("items for something that is not a dictionary".into());
        };
        if !items.len().is_multiple_of(2) {
            return Err("a key without a value".into());
        }
        entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    /// Counts copied items; a pickle that refers to one long list over and over ends here.
    fn count(&mut self, items: usize) -> Result<()> {
        self.copied += items;
        match self.copied <= self.input.bytes.len() {
            true => Ok(()),
            false => Err("it copies more than it holds".into()),
        }
    }

    fn remember(&mut self, key: u64) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<()> {
        let value = self.memo.get(&key).ok_or_else(|| format!("memo {key} is empty"))?;
        self.stack.push(*value);
        Ok(())
    }

    fn text(&self, id: Id) -> Result<&str> {
        match self.value(id) {
            Value::Text(text) => Ok(text),
            _ => Err("text is missing where a name should be".into()),
        }
    }

    fn size(&self, id: Id) -> Result<usize> {
        match self.value(id) {
            Value::Int(value) => usize::try_from(*value).map_err(|_| format!("{value} is no size")),
            _ => Err("a number is missing where a size should be".into()),
        }
    }

    fn items(&self, id: Id) -> Result<&[Id]> {
        match self.value(id) {
            Value::Tuple(items) => Ok(items),
            _ => Err("a tuple is missing".into()),
        }
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>> {
        let items = self.items(id)?;
        if items.len() > DIMENSIONS {
            return Err(format!("a tensor of {} dimensions", items.len()));
        }
        items.iter().map(|&id| self.size(id)).collect()
    }

    /// What a persistent id stands for: ('storage', class, key, place, length), with a `None` at the
    /// end before PyTorch 1.6.
    fn storage(&self, id: Id) -> Result<Storage> {
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

    /// The value that calling a global with arguments stands for.
    fn rebuild(&mut self, global: Id, arguments: Id) -> Result<()> {
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

/// A signed little-endian number of any length.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 16 {
        return Value::Opaque;
    }
    let negative = bytes.last().is_some_and(|&last| last >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i128::from_le_bytes(wide))
}
