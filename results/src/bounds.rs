//! Limits on what a Parquet file may declare, given its length, checked before the reader trusts it.
//!
//! A Parquet reader reserves what headers ask for: as many items as a list claims to have, as many bytes as a page
//! claims to unpack to. In a file that we wrote these are true; a forger who recomputes the seal may claim anything. So the
//! footer and the header of every page are walked first, in Thrift's compact form, and a file is refused unless
//!
//! - every list has at most as many items as bytes are left,
//! - it has at most [`ROWS_PER_BYTE`] rows for each of its bytes, and every column as many values as rows,
//! - its pages unpack to at most [`UNPACKED_PER_BYTE`] times its length,
//! - pages are in plain or dictionary form and compressed by a method that states the unpacked size: for a sealed file
//!   Zstandard or none, as we write them; for one that another program saved also Snappy, gzip, Brotli or LZ4.
//!
//! Format: github.com/apache/parquet-format, `parquet.thrift`.

use std::collections::BTreeMap;

use polars::prelude::DataFrame;

/// Rows for each byte of a file. Outcomes, the tables with most rows, take a byte and more for each.
const ROWS_PER_BYTE: u64 = 16;
/// Bytes unpacked for each byte of a file.
const UNPACKED_PER_BYTE: u64 = 256;
/// Bytes of text, written out for every row, for each byte of a file.
const TEXT_PER_BYTE: u64 = 4096;
/// What the smallest file may have of each.
const LEAST: u64 = 1 << 12;
/// Structs inside structs. Parquet's own headers have six.
const DEEPEST: u32 = 12;

/// A field of a header: those of which nothing here depends keep no value.
enum Value {
    Number(i64),
    List(Vec<Value>),
    Struct(Fields),
    Passed,
}

type Fields = BTreeMap<i16, Value>;

/// How pages may be compressed, by Parquet's numbers.
pub(crate) type Codecs = &'static [u64];
/// As we write: not at all, or Zstandard.
pub(crate) const OURS: Codecs = &[0, 6];
/// As others write: also Snappy, gzip, Brotli and LZ4.
pub(crate) const ANY: Codecs = &[0, 1, 2, 4, 6, 7];

/// Says what a file announces beyond all bounds, if it does.
pub(crate) fn check(file: &[u8], codecs: Codecs) -> Result<(), String> {
    weigh(file, codecs).ok_or_else(|| "its headers announce more than a file of this length holds".to_string())
}

/// Says whether the texts of a table, written out for every row, are longer than its file allows: a dictionary holds
/// a text once, however many rows have it.
pub(crate) fn check_texts(frame: &DataFrame, length: usize) -> Result<(), String> {
    let texts = frame.columns().iter().filter_map(|column| column.str().ok());
    let bytes: u64 = texts
        .flat_map(|column| column.iter().flatten())
        .map(|text| text.len() as u64)
        .sum();
    if bytes <= most(length, TEXT_PER_BYTE) {
        Ok(())
    } else {
        Err("its texts are longer than a file of this length holds".to_string())
    }
}

/// How much a file of this length may have.
fn most(length: usize, per_byte: u64) -> u64 {
    LEAST + (length as u64).saturating_mul(per_byte)
}

fn weigh(file: &[u8], codecs: Codecs) -> Option<()> {
    let length = file.len();
    let footer = Walk::new(footer(file)?).structure(0)?;
    let groups = footer.list(4)?;
    let mut rows = 0u64;
    let mut unpacked = 0u64;
    for group in groups {
        let Value::Struct(group) = group else { return None };
        let of_group = group.size(3)?;
        rows = rows.checked_add(of_group)?;
        for column in group.list(1)? {
            let Value::Struct(column) = column else { return None };
            let column = column.structure(3)?;
            if column.size(5)? != of_group {
                return None;
            }
            unpacked = unpacked.checked_add(weigh_pages(file, column, codecs)?)?;
        }
    }
    let few = rows == footer.size(3)? && rows <= most(length, ROWS_PER_BYTE);
    let fits = few && unpacked <= most(length, UNPACKED_PER_BYTE);
    fits.then_some(())
}

/// The bytes to which the pages of a column unpack.
fn weigh_pages(file: &[u8], column: &Fields, codecs: Codecs) -> Option<u64> {
    if !codecs.contains(&column.size(4)?) {
        return None;
    }
    let first = if column.contains_key(&11) {
        column.size(11)?
    } else {
        column.size(9)?
    };
    let end = first.checked_add(column.size(7)?)?;
    let mut rest = file.get(usize::try_from(first).ok()?..usize::try_from(end).ok()?)?;
    let mut left = column.size(5)?;
    let mut unpacked = 0u64;
    // A dictionary precedes the values, and a column without values may have one.
    while !rest.is_empty() {
        let mut walk = Walk::new(rest);
        let page = walk.structure(0)?;
        let size = page.size(2)?;
        unpacked = unpacked.checked_add(size)?;
        let values = weigh_page(&page, size)?;
        left = left.checked_sub(values)?;
        rest = walk.rest.get(usize::try_from(page.size(3)?).ok()?..)?;
    }
    (left == 0).then_some(unpacked)
}

/// The values in a page, none of which is a dictionary's.
fn weigh_page(page: &Fields, size: u64) -> Option<u64> {
    const DATA: u64 = 0;
    const DICTIONARY: u64 = 2;
    const DATA_2: u64 = 3;
    /// Plain, by dictionary (old and new), runs.
    const ENCODINGS: [u64; 4] = [0, 2, 3, 8];
    let (header, encoding, levels) = match page.size(1)? {
        DATA => (page.structure(5)?, 2, 0),
        DICTIONARY => (page.structure(7)?, 2, 0),
        DATA_2 => {
            let header = page.structure(8)?;
            (header, 4, header.size(5)?.checked_add(header.size(6)?)?)
        }
        _ => return None,
    };
    let values = header.size(1)?;
    let dictionary = page.size(1)? == DICTIONARY;
    // Each entry of a dictionary takes a byte at least; many values may be one run.
    let fits = ENCODINGS.contains(&header.size(encoding)?) && levels <= size && (!dictionary || values <= size);
    fits.then_some(if dictionary { 0 } else { values })
}

/// The footer, without what follows it.
fn footer(file: &[u8]) -> Option<&[u8]> {
    let (before, _) = file.split_last_chunk::<4>()?;
    let (before, length) = before.split_last_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    before.get(before.len().checked_sub(length)?..)
}

trait Get {
    fn list(&self, id: i16) -> Option<&[Value]>;
    fn structure(&self, id: i16) -> Option<&Fields>;
    /// A number that is not negative.
    fn size(&self, id: i16) -> Option<u64>;
}

impl Get for Fields {
    fn list(&self, id: i16) -> Option<&[Value]> {
        match self.get(&id)? {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    fn structure(&self, id: i16) -> Option<&Fields> {
        match self.get(&id)? {
            Value::Struct(fields) => Some(fields),
            _ => None,
        }
    }

    fn size(&self, id: i16) -> Option<u64> {
        match self.get(&id)? {
            Value::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }
}

/// Reads Thrift's compact form. Everything takes a byte at least, so memory is bounded by the text's length.
struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    /// Seven bits in each byte, the lowest first.
    fn unsigned(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        // Ours need no more; another reader may wrap what is longer.
        None
    }

    /// 0, −1, 1, −2, …
    fn signed(&mut self) -> Option<i64> {
        let number = self.unsigned()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn structure(&mut self, depth: u32) -> Option<Fields> {
        if depth > DEEPEST {
            return None;
        }
        let mut fields = Fields::new();
        let mut id = 0i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(fields);
            }
            id = match head >> 4 {
                0 => i16::try_from(self.signed()?).ok()?,
                more => id.checked_add(i16::from(more))?,
            };
            let value = match head & 0xf {
                // A field's flag is its type.
                1 | 2 => Value::Passed,
                kind => self.value(kind, depth)?,
            };
            // Of two with one number a reader may take either.
            if fields.insert(id, value).is_some() {
                return None;
            }
        }
    }

    fn value(&mut self, kind: u8, depth: u32) -> Option<Value> {
        match kind {
            // Flags in lists, and bytes.
            1..=3 => self.byte().map(|_| Value::Passed),
            4..=6 => self.signed().map(Value::Number),
            7 => self.skip(8).map(|()| Value::Passed),
            8 => {
                let length = self.unsigned()?;
                self.skip(length).map(|()| Value::Passed)
            }
            9 => {
                let head = self.byte()?;
                let items = match head >> 4 {
                    15 => self.unsigned()?,
                    items => u64::from(items),
                };
                if items > self.rest.len() as u64 || depth > DEEPEST {
                    return None;
                }
                let item = |_| self.value(head & 0xf, depth + 1);
                (0..items).map(item).collect::<Option<Vec<_>>>().map(Value::List)
            }
            12 => self.structure(depth + 1).map(Value::Struct),
            // Sets, maps and identifiers are in no header.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lists_and_structs_are_read() {
        // 1: 300, 2: "ab", 4: [1, −2], 5: { 1: true }, and the stop.
        let text = [
            0x15, 0xd8, 0x04, 0x18, 2, b'a', b'b', 0x29, 0x25, 2, 3, 0x1c, 0x11, 0, 0,
        ];
        let fields = Walk::new(&text).structure(0).unwrap();
        assert_eq!(fields.size(1), Some(300));
        let numbers = fields.list(4).unwrap().iter().map(|value| match value {
            Value::Number(number) => *number,
            _ => panic!("no number"),
        });
        assert_eq!(numbers.collect::<Vec<_>>(), [1, -2]);
        assert_eq!(fields.structure(5).unwrap().len(), 1);
        for end in 0..text.len() {
            assert!(Walk::new(&text[..end]).structure(0).is_none(), "{end}");
        }
    }

    #[test]
    fn what_announces_more_than_there_is_is_refused() {
        let check = |text: &[u8]| assert!(Walk::new(text).structure(0).is_none(), "{text:?}");
        // A list of 2³⁰ numbers in eight bytes, a repeated field, endless nesting, an endless number.
        check(&[0x19, 0xf5, 0x80, 0x80, 0x80, 0x80, 0x04, 0]);
        check(&[0x15, 2, 0x05, 2, 2, 0]);
        check(&[0x1c; 40]);
        check(&[0x15, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0]);
    }
}
