//! The machine's state: values, stack, marks and memo.

use std::collections::HashMap;

use super::input::Input;
use super::value::{Global, Id, Value};

type Result<T> = std::result::Result<T, String>;

/// More dimensions than any tensor has.
pub(super) const DIMENSIONS: usize = 16;

/// The machine: every value once, and numbers of values on its stack.
pub(super) struct Machine<'a> {
    pub(super) input: Input<'a>,
    pub(super) values: Vec<Value>,
    pub(super) stack: Vec<Id>,
    /// Heights of the stack.
    pub(super) marks: Vec<usize>,
    pub(super) memo: HashMap<u64, Id>,
    /// Items copied from one value to another.
    pub(super) copied: usize,
}

impl<'a> Machine<'a> {
    /// A machine at the first opcode.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            input: Input { bytes, at: 0 },
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        }
    }

    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    pub(super) fn push(&mut self, value: Value) {
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
    }

    /// Pushes what a call of a global would make.
    pub(super) fn push_object(&mut self, global: Global) {
        self.values.push(Value::Global(global));
        let id = (self.values.len() - 1) as Id;
        self.push(Value::Object(id));
    }

    pub(super) fn push_text(&mut self, bytes: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(bytes).map_err(|_| "text is not UTF-8")?;
        self.push(Value::Text(text.to_string()));
        Ok(())
    }

    /// The stack height below which nothing may be popped: a mark protects what is under it.
    pub(super) fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn top(&self) -> Result<Id> {
        let top = (self.stack.len() > self.floor()).then(|| self.stack.last().copied());
        top.flatten().ok_or_else(|| "the stack is empty".to_string())
    }

    pub(super) fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    pub(super) fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        if self.stack.len() < self.floor() + count {
            return Err("the stack is empty".into());
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    pub(super) fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let height = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(height))
    }

    pub(super) fn extend(&mut self, items: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(list) => list.extend(items),
            // A list of a class of its own is passed over.
            Value::Object(_) => {}
            _ => return Err("items for something that is not a list".into()),
        }
        Ok(())
    }

    pub(super) fn set(&mut self, items: &[Id]) -> Result<()> {
        let dict = self.top()?;
        // A dictionary of a class of its own, such as a `defaultdict`, holds what a dictionary holds.
        if let made @ Value::Object(_) = &mut self.values[dict as usize] {
            *made = Value::Dict(Vec::new());
        }
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
    pub(super) fn count(&mut self, items: usize) -> Result<()> {
        self.copied += items;
        if self.copied > self.input.bytes.len() {
            return Err("it copies more than it holds".into());
        }
        Ok(())
    }

    pub(super) fn remember(&mut self, key: u64) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    pub(super) fn recall(&mut self, key: u64) -> Result<()> {
        let value = self.memo.get(&key).ok_or_else(|| format!("memo {key} is empty"))?;
        self.stack.push(*value);
        Ok(())
    }

    pub(super) fn text(&self, id: Id) -> Result<&str> {
        match self.value(id) {
            Value::Text(text) => Ok(text),
            _ => Err("text is missing where a name should be".into()),
        }
    }

    pub(super) fn size(&self, id: Id) -> Result<usize> {
        match self.value(id) {
            Value::Int(value) => usize::try_from(*value).map_err(|_| format!("{value} is not a size")),
            _ => Err("a number is missing where a size should be".into()),
        }
    }

    pub(super) fn items(&self, id: Id) -> Result<&[Id]> {
        match self.value(id) {
            Value::Tuple(items) => Ok(items),
            _ => Err("a tuple is missing".into()),
        }
    }

    pub(super) fn sizes(&self, id: Id) -> Result<Vec<usize>> {
        let items = self.items(id)?;
        if items.len() > DIMENSIONS {
            return Err(format!("a tensor of {} dimensions", items.len()));
        }
        items.iter().map(|&id| self.size(id)).collect()
    }
}
