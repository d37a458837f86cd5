//! What every step of resolving a comparison needs: its block, the methods, and errors at a place of the matrix.

use attacks::{Configured, Family, ParseError, Registry, Setting};
use defenses::Defense;
use serde_json::{Map, Value};

use crate::matrix::{Block, Checkpoint, Matrix, MatrixError, SelectionSplit, from_value};
use crate::methods::Methods;
use crate::suggest::nearest;

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
}

impl Scope<'_> {
    /// An error about a field of the block.
    pub(super) fn error(&self, field: &str, message: impl Into<String>) -> MatrixError {
        self.matrix.error(self.index, field, message)
    }

    /// Fails where the best checkpoint is wanted and there are no examples to choose it on.
    pub(super) fn check_has_best(&self, field: &str, checkpoint: Checkpoint) -> Result<(), MatrixError> {
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
    pub(super) fn setting(&self, network: &str, field: &str) -> Result<Setting, MatrixError> {
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
    ) -> Result<Configured<dyn Defense>, MatrixError> {
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
    ) -> Result<Option<T>, MatrixError> {
        let parse = |value| from_value(value).map_err(|(_, message)| self.error(&format!("{field}.{key}"), message));
        entry.remove(key).map(parse).transpose()
    }

    /// A method with every field filled.
    pub(super) fn method<T: ?Sized + 'static>(
        &self,
        field: &str,
        mut entry: Map<String, Value>,
        registry: &Registry<T>,
        setting: &Setting,
        harness_keys: &[&str],
    ) -> Result<Configured<T>, MatrixError> {
        let name: Option<String> = self.take(field, &mut entry, "name")?;
        let name = name.ok_or_else(|| self.error(field, "missing field `name`"))?;
        registry
            .parse(&name, Value::Object(entry), setting)
            .map_err(|error| match error {
                ParseError::UnknownName { .. } => {
                    let place = format!("{field}.name");
                    self.error(&place, error.to_string())
                }
                ParseError::Field { field: inner, message } => {
                    let place = if inner.is_empty() {
                        field.to_string()
                    } else {
                        format!("{field}.{inner}")
                    };
                    self.error(&place, hint_harness_key(message, harness_keys))
                }
            })
    }
}

/// Keys of an entry that the harness itself reads.
pub(super) const METHOD_KEYS: &[&str] = &["name"];
pub(super) const ATTACK_KEYS: &[&str] = &["name", "label", "epsilon", "limit"];
const DEFENSE_KEYS: &[&str] = &["name", "label", "recipe", TEACHER, UNLABELED];
pub(super) const TEACHER: &str = "teacher";
pub(super) const UNLABELED: &str = "unlabeled";

/// Suggests a misspelt harness key where the method knows no such field.
fn hint_harness_key(message: String, keys: &[&str]) -> String {
    let unknown = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split('`').next());
    match unknown.and_then(|word| nearest(word, keys.iter().copied())) {
        Some(key) => format!("{message}; did you mean `{key}`?"),
        None => message,
    }
}
