//! Finds the state dictionary in what a pickle built.

use std::collections::BTreeMap;

use super::contents::{Checkpoint, Format};
use super::pickle::{Id, Pickle, Value};

type Result<T> = std::result::Result<T, String>;

/// A pickle with the bytes of its storages.
#[derive(Debug)]
pub(super) struct Pickled<'a> {
    pub(super) pickle: Pickle,
    pub(super) storages: BTreeMap<String, &'a [u8]>,
}

/// Under these keys training scripts keep the network.
const WRAPPERS: &[&str] = &["state_dict", "model_state_dict", "net", "model", "network"];
/// The deepest nesting of dictionaries that is read.
const DEPTH: usize = 4;

/// The state dictionary, outermost or under [`WRAPPERS`]. `size` is the file's.
pub(super) fn find(format: Format, pickled: Pickled<'_>, size: usize) -> Result<Checkpoint> {
    let pickle = &pickled.pickle;
    let mut within = Vec::new();
    let mut entries = named(pickle, pickle.root)?.ok_or("it holds no dictionary; save `model.state_dict()`")?;
    loop {
        let mut inner = Vec::new();
        for key in WRAPPERS {
            let Some(&id) = entries.get(*key) else { continue };
            if let Some(dictionary) = named(pickle, id)? {
                inner.push((*key, dictionary));
            }
        }
        match inner.pop() {
            None => break,
            Some((key, _)) if !inner.is_empty() => {
                let keys: Vec<&str> = inner.iter().map(|(key, _)| *key).chain([key]).collect();
                return Err(format!(
                    "it holds dictionaries under `{}`; save the right one alone",
                    keys.join("` and `")
                ));
            }
            Some(_) if within.len() == DEPTH => return Err("its dictionaries are nested too deeply".into()),
            Some((key, dictionary)) => {
                within.push(key.to_string());
                entries = dictionary;
            }
        }
    }
    let is_tensor = |id: &Id| matches!(pickle.get(*id), Value::Tensor(_));
    if !entries.values().any(is_tensor) {
        let names: Vec<&str> = entries.keys().take(10).map(String::as_str).collect();
        return Err(format!(
            "it holds no state dictionary: there is no tensor among its entries ({}), nor a dictionary under `{}`",
            names.join(", "),
            WRAPPERS.join("`, `"),
        ));
    }
    let mut tensors = BTreeMap::new();
    let mut other = Vec::new();
    // Several tensors may share a storage; a hostile file has thousands do so.
    let mut left = size.saturating_mul(4);
    for (name, id) in entries {
        let Value::Tensor(view) = pickle.get(id) else {
            other.push(name);
            continue;
        };
        let in_entry = |problem: String| format!("`{name}`: {problem}");
        let bytes = pickled.storages.get(&view.storage.key).ok_or_else(|| {
            in_entry(format!(
                "its storage `{}` is not in the file",
                view.storage.key.escape_debug()
            ))
        })?;
        let needed = view
            .count()
            .map_err(in_entry)?
            .saturating_mul(view.storage.element.size());
        left = left
            .checked_sub(needed)
            .ok_or("its tensors need much more memory than the file is long")?;
        let tensor = view.tensor(bytes).map_err(in_entry)?;
        tensors.insert(name, tensor);
    }
    Ok(Checkpoint {
        format,
        within,
        prefix: String::new(),
        tensors,
        other,
        metadata: BTreeMap::new(),
    })
}

/// A dictionary's entries by name. `None`: the value is no dictionary, or has keys that are not text, as the state of
/// an optimizer does.
fn named(pickle: &Pickle, id: Id) -> Result<Option<BTreeMap<String, Id>>> {
    let Value::Dict(entries) = pickle.get(id) else {
        return Ok(None);
    };
    let mut names = BTreeMap::new();
    for (key, value) in entries {
        let Value::Text(key) = pickle.get(*key) else {
            return Ok(None);
        };
        if names.insert(key.clone(), *value).is_some() {
            return Err(format!("a dictionary has the key `{}` twice", key.escape_debug()));
        }
    }
    Ok(Some(names))
}
