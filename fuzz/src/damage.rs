//! Ways to damage bytes, text and values.

use serde_json::{Value, json};

use crate::Rng;

/// Longer inputs find nothing new and take longer.
const LONGEST: usize = 1 << 18;

/// One to eight changes: bits, bytes, numbers in place of lengths, pieces cut, doubled, moved or taken from
/// `other`, words of the format.
pub(crate) fn bytes(rng: &mut Rng, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
    for _ in 0..1 + rng.below(8) {
        one(rng, input, other, words);
        if rng.one_in(3) {
            break;
        }
    }
    input.truncate(LONGEST);
}

fn one(rng: &mut Rng, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
    let at = rng.below(input.len());
    match rng.below(12) {
        0 | 1 if !input.is_empty() => input[at] ^= 1 << rng.below(8),
        2 if !input.is_empty() => input[at] = rng.next() as u8,
        3 | 4 => number(rng, input),
        5 => input.truncate(at),
        6 => {
            let end = (at + 1 + rng.below(64)).min(input.len());
            input.drain(at.min(end)..end);
        }
        7 => {
            let end = (at + 1 + rng.below(256)).min(input.len());
            let piece = input[at.min(end)..end].to_vec();
            let to = rng.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        8 if !other.is_empty() => {
            let from = rng.below(other.len());
            let piece = &other[from..(from + 1 + rng.below(256)).min(other.len())];
            let end = (at + if rng.one_in(2) { piece.len() } else { 0 }).min(input.len());
            input.splice(at.min(end)..end, piece.iter().copied());
        }
        9 if !other.is_empty() => {
            // The head of one file and the tail of another.
            input.truncate(at);
            input.extend(&other[rng.below(other.len())..]);
        }
        10 if !words.is_empty() => {
            let word = rng.pick(words);
            let end = (at + if rng.one_in(2) { word.len() } else { 0 }).min(input.len());
            input.splice(at.min(end)..end, word.iter().copied());
        }
        _ => {
            let fill = [0, 0xff, b' ', b'\n', rng.next() as u8][rng.below(5)];
            let count = 1 + rng.below(40);
            input.splice(at..at, std::iter::repeat_n(fill, count));
        }
    }
}

/// Overwrites what may be a length with another number, in either byte order.
fn number(rng: &mut Rng, input: &mut [u8]) {
    let width = [1, 2, 4, 8][rng.below(4)];
    let Some(last) = input.len().checked_sub(width) else {
        return;
    };
    let at = rng.below(last + 1);
    let length = input.len() as u64;
    let value = match rng.below(10) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => u64::MAX >> (1 + rng.below(63)),
        4 => 1 << rng.below(64),
        5 => length,
        6 => length.wrapping_sub(rng.below(64) as u64),
        7 => length + rng.below(64) as u64,
        8 => rng.next() >> rng.below(64),
        _ => {
            // A little more or less than the old value.
            let mut wide = [0; 8];
            wide[..width].copy_from_slice(&input[at..at + width]);
            u64::from_le_bytes(wide)
                .wrapping_add(rng.below(9) as u64)
                .wrapping_sub(4)
        }
    };
    let little = value.to_le_bytes();
    input[at..at + width].copy_from_slice(&little[..width]);
    if rng.one_in(2) {
        input[at..at + width].reverse();
    }
}

/// One to four changes to a tree: values of another kind, extreme numbers, entries missing, doubled, moved.
pub(crate) fn value(rng: &mut Rng, root: &mut Value) {
    for _ in 0..1 + rng.below(4) {
        let nodes = count(root);
        let mut target = rng.below(nodes);
        let spare = nth(root, &mut rng.below(nodes)).cloned().unwrap_or_default();
        if let Some(node) = nth_mut(root, &mut target) {
            change(rng, node, spare);
        }
    }
}

fn change(rng: &mut Rng, node: &mut Value, spare: Value) {
    match node {
        Value::Object(map) if rng.below(3) > 0 => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let Some(key) = keys.get(rng.below(keys.len())) else {
                return;
            };
            match rng.below(3) {
                0 => {
                    map.remove(key);
                }
                1 => {
                    map.insert(key.clone(), spare);
                }
                _ => {
                    let old = map.remove(key).unwrap_or_default();
                    let other = keys[rng.below(keys.len())].clone();
                    map.insert(other, old);
                }
            }
        }
        Value::Array(items) if rng.below(3) > 0 => {
            let at = rng.below(items.len());
            match rng.below(3) {
                0 if !items.is_empty() => {
                    items.remove(at);
                }
                1 => items.insert(at, spare),
                _ => items.extend(items.clone().into_iter().take(20)),
            }
        }
        _ => *node = scalar(rng, spare),
    }
}

fn scalar(rng: &mut Rng, spare: Value) -> Value {
    match rng.below(16) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(rng.next() >> rng.below(64)),
        5 => json!(u64::MAX),
        6 => json!(i64::MIN),
        7 => json!([1e308, -1e308, 1e-320, 0.5, -0.0, 255.0, 1e19][rng.below(7)]),
        8 => json!(""),
        9 => json!(rng.pick(&[
            "0/0",
            "8/255",
            "1/0",
            "-1/2",
            "1e400",
            "nan",
            "inf",
            "9999999999999999999/1"
        ])),
        10 => json!(rng.pick(&[
            "..",
            "../../x",
            "/etc/passwd",
            "a/b",
            "C:\\x",
            "\u{0}",
            "wrn-10-1",
            "wrn-999999-99999999"
        ])),
        11 => json!([]),
        12 => json!({}),
        13 => json!("x".repeat(rng.below(300))),
        _ => spare,
    }
}

/// Puts an unknown key into some map. `None` if there is no map.
pub(crate) fn foreign_key(rng: &mut Rng, root: &mut Value, key: &str) -> Option<()> {
    let nodes = count(root);
    for _ in 0..50 {
        if let Some(Value::Object(map)) = nth_mut(root, &mut rng.below(nodes)) {
            map.insert(key.to_string(), json!(1));
            return Some(());
        }
    }
    None
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum::<usize>(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

fn nth<'a>(value: &'a Value, left: &mut usize) -> Option<&'a Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter().find_map(|item| nth(item, left)),
        Value::Object(map) => map.values().find_map(|item| nth(item, left)),
        _ => None,
    }
}

fn nth_mut<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth_mut(item, left)),
        Value::Object(map) => map.values_mut().find_map(|item| nth_mut(item, left)),
        _ => None,
    }
}
