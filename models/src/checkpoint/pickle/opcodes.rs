//! The opcodes, in families. Source: Python's `pickletools`.

use super::input::Input;
use super::machine::Machine;
use super::value::{Global, Id, Value};

type Result<T> = std::result::Result<T, String>;

impl Machine<'_> {
    /// Executes one opcode. Returns the result at the last one.
    pub(super) fn step(&mut self) -> Result<Option<Id>> {
        let [opcode] = *self.input.take(1)? else {
            unreachable!("one byte")
        };
        // STOP
        if opcode == b'.' {
            return self.pop().map(Some);
        }
        let known = self.framing(opcode)?
            || self.numbers(opcode)?
            || self.texts(opcode)?
            || self.containers(opcode)?
            || self.sets(opcode)?
            || self.memos(opcode)?
            || self.calls(opcode)?;
        if known {
            Ok(None)
        } else {
            Err(format!("opcode {opcode:#04x} is not one that `torch.save` uses"))
        }
    }

    /// Protocol, frames and the stack. False, here and below: the opcode is of another family.
    fn framing(&mut self, opcode: u8) -> Result<bool> {
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
            // MARK, POP, POP_MARK, DUP
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => self.stack.push(self.top()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn numbers(&mut self, opcode: u8) -> Result<bool> {
        let value = match opcode {
            // NONE, NEWTRUE, NEWFALSE
            b'N' => Value::Opaque,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            // INT, whose 00 and 01 are booleans
            b'I' => match self.input.line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                text => Value::Int(text.parse().map_err(|_| "a number is not a number")?),
            },
            // LONG
            b'L' => {
                let text = self.input.line()?.trim_end_matches('L');
                text.parse().map_or(Value::Opaque, Value::Int)
            }
            // BININT, BININT1, BININT2
            b'J' => Value::Int((self.input.number::<4>()? as u32 as i32).into()),
            b'K' => Value::Int(self.input.number::<1>()?.into()),
            b'M' => Value::Int(self.input.number::<2>()?.into()),
            // LONG1, LONG4
            0x8a => long(self.input.counted::<1>()?),
            0x8b => long(self.input.counted::<4>()?),
            // FLOAT, BINFLOAT
            b'F' => {
                self.input.line()?;
                Value::Float
            }
            b'G' => {
                self.input.take(8)?;
                Value::Float
            }
            _ => return Ok(false),
        };
        self.push(value);
        Ok(true)
    }

    fn texts(&mut self, opcode: u8) -> Result<bool> {
        let bytes = match opcode {
            // STRING: text of Python 2
            b'S' => {
                let text = self.input.line()?.trim_matches(['\'', '"']).to_string();
                self.push(Value::Text(text));
                return Ok(true);
            }
            // UNICODE
            b'V' => {
                let text = self.input.line()?.to_string();
                self.push(Value::Text(text));
                return Ok(true);
            }
            // BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8
            b'B' => return self.bytes(|input| input.counted::<4>().map(drop)),
            b'C' => return self.bytes(|input| input.counted::<1>().map(drop)),
            0x8e | 0x96 => return self.bytes(|input| input.counted::<8>().map(drop)),
            // BINSTRING, SHORT_BINSTRING: text of Python 2, which also kept bytes in them
            b'T' | b'U' => {
                let bytes = match opcode {
                    b'T' => self.input.counted::<4>()?,
                    _ => self.input.counted::<1>()?,
                };
                let text = std::str::from_utf8(bytes).map(str::to_string);
                self.push(text.map_or(Value::Opaque, Value::Text));
                return Ok(true);
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
            b'X' => self.input.counted::<4>()?,
            0x8c => self.input.counted::<1>()?,
            0x8d => self.input.counted::<8>()?,
            _ => return Ok(false),
        };
        self.push_text(bytes)?;
        Ok(true)
    }

    /// Passes over bytes.
    fn bytes(&mut self, pass_over: fn(&mut Input<'_>) -> Result<()>) -> Result<bool> {
        pass_over(&mut self.input)?;
        self.push(Value::Opaque);
        Ok(true)
    }

    /// Tuples, lists and dictionaries.
    fn containers(&mut self, opcode: u8) -> Result<bool> {
        match opcode {
            // EMPTY_TUPLE, TUPLE, TUPLE1 to TUPLE3
            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items));
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push(Value::Tuple(items));
            }
            // EMPTY_LIST, LIST, APPEND, APPENDS
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
            // EMPTY_DICT, DICT, SETITEM, SETITEMS
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
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn sets(&mut self, opcode: u8) -> Result<bool> {
        match opcode {
            // EMPTY_SET, ADDITEMS, FROZENSET
            0x8f => self.push(Value::Opaque),
            0x90 => {
                self.pop_mark()?;
            }
            0x91 => {
                self.pop_mark()?;
                self.push(Value::Opaque);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn memos(&mut self, opcode: u8) -> Result<bool> {
        let number = |text: &str| text.parse().map_err(|_| "a memo without a number");
        match opcode {
            // GET, BINGET, LONG_BINGET
            b'g' => {
                let key = number(self.input.line()?)?;
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
            // PUT, BINPUT, LONG_BINPUT, MEMOIZE
            b'p' => {
                let key = number(self.input.line()?)?;
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
            0x94 => self.remember(self.memo.len() as u64)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Globals and what is built of them.
    fn calls(&mut self, opcode: u8) -> Result<bool> {
        match opcode {
            // GLOBAL
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
            // INST names a class as GLOBAL does, and would make an object of the arguments after the mark.
            b'i' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                let global = Global::named(module, name)?;
                self.pop_mark()?;
                self.push_object(global);
            }
            // OBJ: the class is the first after the mark.
            b'o' => {
                let class = *self.pop_mark()?.first().ok_or("an object without a class")?;
                self.push(Value::Object(class));
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let parts = self.pop_many(2)?;
                self.rebuild(parts[0], parts[1])?;
            }
            // NEWOBJ_EX: with arguments by name.
            0x92 => {
                let parts = self.pop_many(3)?;
                self.push(Value::Object(parts[0]));
            }
            // BUILD: attributes, such as an ordered dictionary's `_metadata`, or the state of an object that is passed over.
            b'b' => {
                self.pop()?;
                if !matches!(
                    self.value(self.top()?),
                    Value::Dict(_) | Value::Object(_) | Value::Opaque
                ) {
                    return Err("attributes of something that is not a dictionary".into());
                }
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage);
            }
            _ => return Ok(false),
        }
        Ok(true)
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
