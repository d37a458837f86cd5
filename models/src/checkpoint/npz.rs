//! NumPy's `.npz`: a zip file of arrays, each `NAME.npy`.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>. An array of objects is a pickle; it
//! is refused.

use std::collections::BTreeMap;

use super::archive::Entries;
use super::contents::{Checkpoint, Format};
use super::element::Element;
use super::view::{Storage, View};

type Result<T> = std::result::Result<T, String>;

const MAGIC: &[u8] = b"\x93NUMPY";
/// More dimensions than any array here has.
const DIMENSIONS: usize = 16;

/// Whether a zip file is of arrays.
pub(super) fn is(entries: &Entries<'_>) -> bool {
    !entries.is_empty() && entries.keys().all(|name| name.ends_with(".npy"))
}

pub(super) fn load(entries: &Entries<'_>) -> Result<Checkpoint> {
    let mut tensors = BTreeMap::new();
    for (name, content) in entries {
        let name = name.trim_end_matches(".npy");
        let in_array = |problem: String| format!("`{}`: {problem}", name.escape_debug());
        let (view, numbers) = array(content).map_err(in_array)?;
        tensors.insert(name.to_string(), view.tensor(numbers).map_err(in_array)?);
    }
    Ok(Checkpoint::flat(Format::Npz, tensors))
}

/// An array's shape and order, and its numbers.
fn array(content: &[u8]) -> Result<(View, &[u8])> {
    const CUT: &str = "its header is cut short";
    let rest = content.strip_prefix(MAGIC).ok_or("it is not an array of NumPy")?;
    let ([major, _], rest) = rest.split_first_chunk::<2>().ok_or(CUT)?;
    let (length, rest) = if *major == 1 {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(CUT)?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(CUT)?;
        (u32::from_le_bytes(*length) as usize, rest)
    };
    let (header, numbers) = rest.split_at_checked(length).ok_or(CUT)?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is not text")?;
    // As Python writes a dictionary: {'descr': '<f4', 'fortran_order': False, 'shape': (60, 1, 8, 8), }
    let after = |key: &str| Some(header.split_once(&format!("'{key}':"))?.1.trim_start());
    let kind = after("descr").and_then(|text| text.strip_prefix('\'')?.split('\'').next());
    let kind = kind.ok_or("its header names no type of number")?;
    let element = match kind.trim_start_matches(['<', '|', '=']) {
        "f8" => Element::F64,
        "f4" => Element::F32,
        "f2" => Element::F16,
        "i8" => Element::I64,
        "i4" => Element::I32,
        "i2" => Element::I16,
        "i1" => Element::I8,
        "u1" | "b1" => Element::U8,
        _ => {
            return Err(format!(
                "it holds `{}`, not numbers that are read here",
                kind.escape_debug()
            ));
        }
    };
    let shape = after("shape").and_then(|text| text.strip_prefix('(')?.split(')').next());
    let shape = shape.ok_or("its header names no shape")?.split(',').map(str::trim);
    let shape = shape
        .filter(|size| !size.is_empty())
        .map(|size| size.parse::<usize>().map_err(|_| "a size is not a number"));
    let shape = shape.collect::<std::result::Result<Vec<_>, _>>()?;
    if shape.len() > DIMENSIONS {
        return Err(format!("an array of {} dimensions", shape.len()));
    }
    let by_columns = after("fortran_order").is_some_and(|text| text.starts_with("True"));
    let view = View {
        storage: Storage {
            key: String::new(),
            element,
            length: numbers.len() / element.size(),
        },
        offset: 0,
        strides: strides(&shape, by_columns).ok_or("its shape does not fit into memory")?,
        shape,
    };
    if view.count()? != view.storage.length {
        return Err(format!(
            "shape {:?} does not take its {} numbers",
            view.shape, view.storage.length
        ));
    }
    Ok((view, numbers))
}

/// The strides of numbers in a row, in order of rows or of columns.
fn strides(shape: &[usize], by_columns: bool) -> Option<Vec<usize>> {
    let mut strides = vec![1; shape.len()];
    let mut next = 1usize;
    for i in 0..shape.len() {
        let axis = if by_columns { i } else { shape.len() - 1 - i };
        strides[axis] = next;
        next = next.checked_mul(shape[axis])?;
    }
    Some(strides)
}
