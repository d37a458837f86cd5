//! The dictionaries in what a pickle built.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::choose::{Choice, Names};
use super::contents::{Checkpoint, Format};
use super::pickle::{Id, Pickle, Value};

type Result<T> = std::result::Result<T, String>;

/// A pickle with the bytes of its storages.
#[derive(Debug)]
pub(super) struct Pickled<'a> {
    pub(super) pickle: Pickle,
    pub(super) storages: BTreeMap<String, &'a [u8]>,
}

/// The deepest nesting of dictionaries that is searched.
const DEPTH: usize = 4;
/// Of a list, this many items are searched.
const LONGEST: usize = 1000;

/// A dictionary, or a list by its numbers: the keys that lead to it, and its entries.
#[derive(Debug)]
pub(super) struct Dictionary<'p> {
    path: Vec<Cow<'p, str>>,
    entries: Entries<'p>,
    pickle: &'p Pickle,
}

/// Entries by name. Names are not copied: a hostile file has thousands of dictionaries share a long one.
type Entries<'p> = BTreeMap<Cow<'p, str>, Id>;

impl Dictionary<'_> {
    /// Its keys, and the names of its tensors.
    pub(super) fn names(&self) -> Names<'_> {
        let is_tensor = |id: &Id| matches!(self.pickle.get(*id), Value::Tensor(_));
        let tensors = self.entries.iter().filter(|(_, id)| is_tensor(id));
        Names {
            path: self.path.iter().map(|key| &**key).collect(),
            tensors: tensors.map(|(name, _)| &**name).collect(),
        }
    }

    /// Its tensors and other entries. `size` is the file's.
    pub(super) fn contents(
        &self,
        format: Format,
        pickled: &Pickled<'_>,
        choice: Choice,
        size: usize,
    ) -> Result<Checkpoint> {
        let (mut tensors, mut beside) = (BTreeMap::new(), BTreeMap::new());
        let mut other = Vec::new();
        // Several tensors may share a storage; a hostile file has thousands do so.
        let mut left = size.saturating_mul(4);
        for (name, &id) in self.entries.iter().filter(|(name, _)| !choice.owned.contains(&***name)) {
            let Value::Tensor(view) = self.pickle.get(id) else {
                let inside: Vec<&str> = self.path.iter().chain([name]).map(|key| &**key).collect();
                if !choice.elsewhere.iter().any(|path| path.starts_with(&inside)) {
                    other.push(name.to_string());
                }
                continue;
            };
            let in_entry = |problem: String| format!("`{}`: {problem}", name.escape_debug());
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
            match name.strip_prefix(&choice.prefix[..]) {
                Some(rest) => tensors.insert(rest.to_string(), tensor),
                None => beside.insert(name.to_string(), tensor),
            };
        }
        Ok(Checkpoint {
            format,
            within: self.path.iter().map(ToString::to_string).collect(),
            prefix: choice.prefix,
            tensors,
            beside,
            apart: choice.apart,
            other,
            metadata: BTreeMap::new(),
        })
    }
}

/// Every dictionary with a tensor, from the outermost inwards.
pub(super) fn all(pickle: &Pickle) -> Result<Vec<Dictionary<'_>>> {
    let Some(outermost) = entries(pickle, pickle.root)? else {
        return Err(no_dictionary(pickle));
    };
    let names: Vec<String> = outermost
        .iter()
        .take(10)
        .map(|(name, id)| described(pickle, name, *id))
        .collect();
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([pickle.root]);
    let mut left = vec![(Vec::new(), vec![pickle.root], outermost)];
    while let Some((path, ids, entries_here)) = left.pop() {
        let mut inner = Vec::new();
        for (name, &id) in &entries_here {
            if ids.contains(&id) {
                return Err("its dictionaries are nested too deeply: one holds itself".into());
            }
            if ids.len() > DEPTH || seen.contains(&id) {
                continue;
            }
            if let Some(entries) = entries(pickle, id)? {
                seen.insert(id);
                inner.push((
                    [&path[..], std::slice::from_ref(name)].concat(),
                    [&ids[..], &[id]].concat(),
                    entries,
                ));
            }
        }
        left.extend(inner.into_iter().rev());
        if entries_here
            .values()
            .any(|id| matches!(pickle.get(*id), Value::Tensor(_)))
        {
            found.push(Dictionary {
                path,
                entries: entries_here,
                pickle,
            });
        }
    }
    if found.is_empty() {
        return Err(format!(
            "it holds no dictionary of tensors ({}); save `model.state_dict()`",
            names.join(", ")
        ));
    }
    Ok(found)
}

/// An entry's name, with its class where the file names one.
fn described(pickle: &Pickle, name: &str, id: Id) -> String {
    let name = name.escape_debug();
    match pickle.foreign(id) {
        Some(class) => format!("`{name}`, a `{class}`"),
        None => format!("`{name}`"),
    }
}

fn no_dictionary(pickle: &Pickle) -> String {
    match pickle.foreign(pickle.root) {
        Some(class) => format!(
            "it holds a `{class}` and no dictionary of tensors, and nothing of a pickle is executed; save \
             `model.state_dict()` alone"
        ),
        None => "it holds no dictionary; save `model.state_dict()`".into(),
    }
}

/// A dictionary's entries by name, or a list's by number. Keys that are not text, as in the state of an optimizer, are
/// passed over. `None`: the value is neither.
fn entries(pickle: &Pickle, id: Id) -> Result<Option<Entries<'_>>> {
    let pairs = match pickle.get(id) {
        Value::Dict(pairs) => pairs,
        Value::List(items) | Value::Tuple(items) => {
            let numbered = items.iter().take(LONGEST).enumerate();
            return Ok(Some(
                numbered.map(|(number, id)| (number.to_string().into(), *id)).collect(),
            ));
        }
        _ => return Ok(None),
    };
    let mut names = BTreeMap::new();
    for (key, value) in pairs {
        let Value::Text(key) = pickle.get(*key) else {
            continue;
        };
        if names.insert(Cow::Borrowed(key.as_str()), *value).is_some() {
            return Err(format!("a dictionary has the key `{}` twice", key.escape_debug()));
        }
    }
    Ok(Some(names))
}
