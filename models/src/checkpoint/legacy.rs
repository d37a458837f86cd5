//! What `torch.save` wrote before PyTorch 1.6: five pickles in a row (a magic number, a protocol number, the
//! writing machine's sizes, the object, the storages' keys), then each storage as its length in eight bytes
//! and its numbers. There is no check sum, so a flipped byte of a number goes unnoticed.

use std::collections::BTreeMap;

use super::dictionary::Pickled;
use super::element::Element;
use super::pickle::{self, Pickle, Value};

type Result<T> = std::result::Result<T, String>;

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const PROTOCOL: i128 = 1001;

/// Whether a file begins like that.
pub(super) fn begins(bytes: &[u8]) -> bool {
    let Ok((pickle, _)) = pickle::parse(&bytes[..bytes.len().min(64)]) else {
        return false;
    };
    matches!(pickle.get(pickle.root), Value::Int(MAGIC))
}

/// The pickle and the storages of a file.
pub(super) fn load(bytes: &[u8]) -> Result<Pickled<'_>> {
    let (_, rest) = pickle::parse(bytes)?;
    let (protocol, rest) = pickle::parse(rest)?;
    if !matches!(protocol.get(protocol.root), Value::Int(PROTOCOL)) {
        return Err("it is of a protocol of PyTorch that is not known".into());
    }
    let (machine, rest) = pickle::parse(rest)?;
    if !little_endian(&machine) {
        return Err("its byte order is not little; save it again on an ordinary machine".into());
    }
    let (pickle, rest) = pickle::parse(rest)?;
    let (keys, mut rest) = pickle::parse(rest)?;
    let elements = elements(&pickle)?;
    let Value::List(ids) = keys.get(keys.root) else {
        return Err("it has no list of storages".into());
    };
    let mut storages = BTreeMap::new();
    for &id in ids {
        let Value::Text(key) = keys.get(id) else {
            return Err("the key of a storage is not text".into());
        };
        let element = elements
            .get(key.as_str())
            .ok_or("it holds a storage that nothing refers to")?;
        let cut = || "it is truncated: a storage ends early; copy it again".to_string();
        let (length, after) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok();
        let length = length
            .and_then(|length| length.checked_mul(element.size()))
            .ok_or_else(cut)?;
        let (content, after) = after.split_at_checked(length).ok_or_else(cut)?;
        rest = after;
        if storages.insert(key.clone(), content).is_some() {
            return Err("it holds a storage twice".into());
        }
    }
    match rest {
        [] => Ok(Pickled { pickle, storages }),
        _ => Err(format!("{} bytes follow its last storage", rest.len())),
    }
}

/// The entry `little_endian` of the writing machine.
fn little_endian(machine: &Pickle) -> bool {
    let Value::Dict(entries) = machine.get(machine.root) else {
        return false;
    };
    let is = |id, text: &str| matches!(machine.get(id), Value::Text(found) if found == text);
    let entry = entries.iter().find(|(key, _)| is(*key, "little_endian"));
    entry.is_some_and(|(_, value)| matches!(machine.get(*value), Value::Bool(true)))
}

/// The type of each storage's numbers.
fn elements(pickle: &Pickle) -> Result<BTreeMap<&str, Element>> {
    let mut elements = BTreeMap::new();
    for storage in pickle.storages() {
        if *elements.entry(storage.key.as_str()).or_insert(storage.element) != storage.element {
            return Err("a storage has two types of number".into());
        }
    }
    Ok(elements)
}
