//! What every step of resolving a comparison needs: its block, the methods, and errors at a place of the matrix.

use std::cell::RefCell;

use attacks::{Configured, Family, ParseError, Registry, Setting};
use defenses::Defense;
use serde_json::{Map, Value};
use suggest::nearest;

use crate::matrix::{
    Block, Checkpoint, Fault, Matrix, Mistake, SelectionSplit, from_value, in_plain_words, remove, unknown_field,
};
use crate::methods::Methods;

/// The resolved value, or the fact that a mistake was recorded.
pub(super) type Checked<T> = Result<T, Noted>;

/// A mistake was recorded; what depends on its field cannot be resolved, everything else can.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted;

/// One comparison of a matrix, to be resolved.
pub(super) struct Scope<'a> {
    pub(super) matrix: &'a Matrix,
    pub(super) methods: &'a Methods,
    /// Which block of the matrix.
    pub(super) index: usize,
    pub(super) block: &'a Block,
    pub(super) seeds: Vec<u64>,
    /// The data set of the block, as the program knows it.
    pub(super) entry: &'static datasets::Entry,
    /// Digest of that data set's content.
    pub(super) digest: &'a str,
    /// All mistakes of the matrix so far.
    pub(super) mistakes: &'a RefCell<Vec<Mistake>>,
}

impl Scope<'_> {
    /// Records a mistake in a field of the block.
    pub(super) fn error(&self, field: &str, message: impl Into<String>) -> Noted {
        let mistake = self.matrix.mistake(self.index, field, message);
        self.mistakes.borrow_mut().extend(mistake);
        Noted
    }

    /// Tries something without recording its mistakes.
    pub(super) fn quietly<T>(&self, attempt: impl FnOnce() -> Checked<T>) -> Checked<T> {
        let before = self.mistakes.borrow().len();
        let result = attempt();
        self.mistakes.borrow_mut().truncate(before);
        result
    }

    /// Fails where the best checkpoint is wanted and there are no examples to choose it on.
    pub(super) fn check_has_best(&self, field: &str, checkpoint: Checkpoint) -> Checked<()> {
        let nothing = self.block.dataset.validation == 0 && self.block.selection.split == SelectionSplit::Validation;
        if checkpoint == Checkpoint::Best && nothing {
            return Err(self.error(
                field,
                "choosing the best checkpoint takes held-out examples; set `validation: 1000` or so in `dataset`, \
                 or evaluate `checkpoints: [last]`",
            ));
        }
        Ok(())
    }

    /// What the defaults of methods depend on, for one network.
    pub(super) fn setting(&self, network: &str, field: &str) -> Checked<Setting> {
        let entry = self.entry;
        let found = self
            .methods
            .networks
            .find_for(network, entry.image, entry.classes.len());
        found.map_err(|error| self.error(field, error.to_string()))?;
        Ok(Setting {
            family: match entry.family {
                datasets::Family::Mnist => Family::Mnist,
                datasets::Family::Cifar => Family::Cifar,
            },
            threat: self.block.threat,
            network: network.to_string(),
            image: entry.image,
            classes: entry.classes.len(),
        })
    }

    /// The defense of an entry, without the keys that the harness itself reads.
    pub(super) fn defense(
        &self,
        field: &str,
        entry: &Map<String, Value>,
        setting: &Setting,
    ) -> Checked<Configured<dyn Defense>> {
        let mut entry = entry.clone();
        for key in DEFENSE_KEYS.iter().filter(|key| **key != "name") {
            entry.remove(*key);
        }
        self.method(field, entry, &self.methods.defenses, setting, DEFENSE_KEYS)
    }

    /// Removes a key that the harness reads from a method's entry.
    pub(super) fn take<T: serde::de::DeserializeOwned>(
        &self,
        field: &str,
        entry: &mut Map<String, Value>,
        key: &str,
    ) -> Checked<Option<T>> {
        let Some(value) = entry.remove(key).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let at = |fault: &Fault| match (fault.field.as_str(), fault.field.starts_with('[')) {
            ("", _) => format!("{field}.{key}"),
            (inner, true) => format!("{field}.{key}{inner}"),
            (inner, false) => format!("{field}.{key}.{inner}"),
        };
        from_value(value)
            .map(Some)
            .map_err(|fault| self.error(&at(&fault), fault.message))
    }

    /// A method with every field filled.
    pub(super) fn method<T: ?Sized + 'static>(
        &self,
        field: &str,
        mut entry: Map<String, Value>,
        registry: &Registry<T>,
        setting: &Setting,
        harness_keys: &[&str],
    ) -> Checked<Configured<T>> {
        let name: Option<String> = self.take(field, &mut entry, "name")?;
        let name = name.ok_or_else(|| self.error(field, "missing field `name`"))?;
        // Every wrong field is recorded and removed, so that the next one is found.
        let mut noted = None;
        loop {
            let error = match registry.parse(&name, Value::Object(entry.clone()), setting) {
                Ok(method) => return noted.map_or(Ok(method), Err),
                Err(error) => error,
            };
            let (inner, message) = match error {
                ParseError::UnknownName { .. } => {
                    return Err(self.error(&format!("{field}.name"), error.to_string()));
                }
                ParseError::Field { field, message } => (field, in_plain_words(&message)),
            };
            if noted.is_some() && message.starts_with("missing field") {
                return Err(Noted);
            }
            let place = if inner.is_empty() {
                field.to_string()
            } else {
                format!("{field}.{inner}")
            };
            noted = Some(self.error(&place, hint_harness_key(message, harness_keys)));
            let mut left = Value::Object(std::mem::take(&mut entry));
            let removed = remove(&mut left, inner.split('[').next().unwrap_or_default());
            match left {
                Value::Object(left) if removed => entry = left,
                _ => return Err(Noted),
            }
        }
    }
}

/// Keys of an entry that the harness itself reads.
pub(super) const METHOD_KEYS: &[&str] = &["name"];
pub(super) const ATTACK_KEYS: &[&str] = &["name", "label", "epsilon", "limit"];
pub(super) const DEFENSE_KEYS: &[&str] = &["name", "label", "recipe", TEACHER, UNLABELED];
pub(super) const TEACHER: &str = "teacher";
pub(super) const UNLABELED: &str = "unlabeled";

/// Suggests a misspelt harness key where the method knows no such field.
fn hint_harness_key(message: String, keys: &[&str]) -> String {
    match unknown_field(&message).and_then(|word| nearest(word, keys.iter().copied())) {
        Some(key) => format!("{message}; did you mean `{key}`?"),
        None => message,
    }
}
