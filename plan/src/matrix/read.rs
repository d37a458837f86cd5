//! From a file to a matrix: every mistake at its line and column.

use std::path::Path as FilePath;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::block::Block;
use super::faults::{Fault, salvage};
use super::source::{MatrixError, Mistake, Source};
use super::tables::{TableEntry, TableName};
use crate::yaml::{self, Path};

const HEAD_KEYS: &[&str] = &["name", "blocks", "tables"];
/// The keys that every comparison needs.
const REQUIRED: [&str; 4] = ["dataset", "threat", "networks", "defenses"];
const BLOCK_KEYS: &[&str] = &[
    "dataset",
    "threat",
    "networks",
    "seeds",
    "recipe",
    "defenses",
    "attacks",
    "teacher",
    "unlabeled",
    "transfer",
    "checkpoints",
    "selection",
];

/// A matrix, with what is needed to point into its text.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Names the folder of the run.
    pub name: String,
    /// The comparisons, at least one.
    pub blocks: Vec<Block>,
    /// The tables to typeset.
    pub tables: Vec<TableEntry>,
    /// The file and its text.
    pub source: Source,
    origins: Vec<Origin>,
    /// What was found while it was read, to be reported with what is found while it is resolved.
    pub(crate) mistakes: Vec<Mistake>,
}

/// Where a block comes from.
#[derive(Debug, Clone)]
struct Origin {
    /// Its place in `blocks`.
    index: usize,
    /// The keys that are there; all others are at the top, for all blocks.
    keys: Map<String, Value>,
    /// The keys of it that could not be read, as a whole or in part.
    faulty: Vec<String>,
}

impl Matrix {
    /// Reads a matrix. `settings` are `path=value` pairs laid over it. Mistakes that leave something to resolve are
    /// reported when it is resolved, so that all come at once.
    ///
    /// # Errors
    /// The file cannot be read, is not YAML, or does not have the form of a matrix.
    pub fn read(file: &FilePath, settings: &[String]) -> Result<Self, MatrixError> {
        Self::parse(Source::read(file)?, settings)
    }

    /// Reads a matrix's text, which is in `source`.
    ///
    /// # Errors
    /// The text is not YAML or does not have the form of a matrix.
    pub fn parse(source: Source, settings: &[String]) -> Result<Self, MatrixError> {
        let mut root = yaml::parse(&source.text).map_err(|error| source.syntax_error(error))?;
        for setting in settings {
            set(&mut root, setting).map_err(|message| source.error(&Path::default(), message))?;
        }
        let Value::Object(mut root) = root else {
            return Err(source.error(
                &Path::default(),
                "a matrix is a map with `name`, `dataset`, `defenses` …",
            ));
        };
        // A place for anchors, which nothing reads.
        root.retain(|key, _| !key.starts_with("x-"));
        let top = Path::default();
        let mut reader = Reader {
            source: &source,
            mistakes: Vec::new(),
        };
        let unknown = |key: &&String| !HEAD_KEYS.contains(&key.as_str()) && !BLOCK_KEYS.contains(&key.as_str());
        let unknown: Vec<String> = root.keys().filter(unknown).cloned().collect();
        for key in unknown {
            root.remove(&key);
            let known = [HEAD_KEYS, BLOCK_KEYS].concat().join("`, `");
            reader.mistake(
                &top.key(&key),
                format!("unknown field `{key}`, expected one of `{known}`"),
            );
        }
        let name = reader.name(root.remove("name"));
        let tables = match root.remove("tables") {
            None => vec![TableEntry::new(TableName::WhiteBox)],
            Some(mut value) => {
                items_to_maps(&mut value);
                reader.items(&top.key("tables"), value)
            }
        };
        let overrides: Vec<Map<String, Value>> = match root.remove("blocks") {
            None => vec![Map::new()],
            Some(value) => reader.items(&top.key("blocks"), value),
        };
        if overrides.is_empty() && reader.mistakes.is_empty() {
            reader.mistake(
                &top.key("blocks"),
                "an empty list; leave `blocks` out or give it a block",
            );
        }
        let several = overrides.len() > 1;
        let mut blocks = Vec::new();
        let mut origins = Vec::new();
        for (index, keys) in overrides.into_iter().enumerate() {
            let (block, origin) = reader.block(&root, index, keys, several);
            if let Some(block) = block {
                blocks.push(block);
                origins.push(origin);
            }
        }
        let mistakes = reader.mistakes;
        match name {
            Some(name) if !blocks.is_empty() => Ok(Self {
                name,
                blocks,
                tables,
                source,
                origins,
                mistakes,
            }),
            _ => Err(MatrixError::of(&source.file, mistakes)),
        }
    }

    /// A mistake in a field of a block. `None`: it may only follow from another one.
    pub(crate) fn mistake(&self, block: usize, field: &str, message: impl Into<String>) -> Option<Mistake> {
        let origin = &self.origins[block];
        let key = head(field);
        let sources: &[&str] = match (key, field) {
            ("checkpoints", _) => &["checkpoints", "dataset", "selection"],
            ("dataset" | "unlabeled" | "teacher", _) => &["dataset", "unlabeled", "teacher"],
            (_, "transfer") => &["transfer"],
            ("seeds" | "selection" | "threat", _) => &[key],
            // The fields of a method do not depend on what else could not be read.
            _ => &[],
        };
        let follows = origin.faulty.iter().any(|faulty| sources.contains(&faulty.as_str()));
        (!follows).then(|| self.source.mistake(&origin.path(field), message))
    }
}

impl Origin {
    /// Where a field of the block is in the file.
    fn path(&self, field: &str) -> Path {
        let key = head(field);
        let base = if self.keys.contains_key(key) {
            Path::default().key("blocks").index(self.index)
        } else {
            Path::default()
        };
        base.dotted(field)
    }
}

/// Notes mistakes while a matrix is read.
struct Reader<'a> {
    source: &'a Source,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn mistake(&mut self, path: &Path, message: impl Into<String>) {
        self.mistakes.push(self.source.mistake(path, message));
    }

    fn typed<T: DeserializeOwned>(&mut self, path: &Path, value: Value) -> Option<T> {
        let (typed, faults) = salvage(value);
        for fault in faults {
            self.mistake(&path.dotted(&fault.field), fault.message);
        }
        typed
    }

    /// The items of a list that can be read.
    fn items<T: DeserializeOwned>(&mut self, path: &Path, value: Value) -> Vec<T> {
        let items: Vec<Value> = self.typed(path, value).unwrap_or_default();
        let items = items.into_iter().enumerate();
        items.filter_map(|(i, item)| self.typed(&path.index(i), item)).collect()
    }

    /// A comparison: the keys at the top, with its own laid over them.
    fn block(
        &mut self,
        top: &Map<String, Value>,
        index: usize,
        keys: Map<String, Value>,
        several: bool,
    ) -> (Option<Block>, Origin) {
        let mut merged = top.clone();
        merged.extend(keys.clone());
        normalise(&mut merged);
        let mut origin = Origin {
            index,
            keys,
            faulty: Vec::new(),
        };
        let missing = REQUIRED.iter().filter(|key| !merged.contains_key(**key));
        let missing: Vec<Fault> = missing.map(|key| Fault::missing(key)).collect();
        let (block, mut faults) = salvage(Value::Object(merged));
        if !missing.is_empty() {
            // Serde names one of them.
            faults.retain(|fault| !(fault.field.is_empty() && fault.message.starts_with("missing field")));
            faults.extend(missing);
        }
        for fault in faults {
            origin.faulty.push(head(&fault.field).to_string());
            let path = if fault.field.is_empty() && several {
                Path::default().key("blocks").index(index)
            } else {
                origin.path(&fault.field)
            };
            self.mistake(&path, fault.message);
        }
        (block, origin)
    }

    fn name(&mut self, value: Option<Value>) -> Option<String> {
        const RULE: &str = "letters, digits, `-`, `_` and `.`: it names the folder of the run";
        let path = Path::default().key("name");
        let Some(value) = value else {
            self.mistake(
                &Path::default(),
                format!("missing field `name`; a matrix has a name of {RULE}"),
            );
            return None;
        };
        let name: String = self.typed(&path, value)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            self.mistake(&path, format!("a matrix needs a `name` of {RULE}"));
            return None;
        }
        Some(name)
    }
}

/// Lets a bare name stand for a map with nothing but that name.
fn normalise(block: &mut Map<String, Value>) {
    block.get_mut("dataset").map(name_to_map);
    for key in ["defenses", "attacks"] {
        block.get_mut(key).map(items_to_maps);
    }
    if let Some(limit) = block.get_mut("dataset").and_then(|dataset| dataset.get_mut("limit"))
        && limit.is_number()
    {
        *limit = serde_json::json!({"train": limit, "test": limit});
    }
    if let Some(transfer) = block.get_mut("transfer") {
        transfer.get_mut("attacks").map(items_to_maps);
        transfer.get_mut("source").map(other_network);
    }
    block.get_mut("teacher").map(other_network);
    if let Some(Value::Array(defenses)) = block.get_mut("defenses") {
        for defense in defenses {
            defense.get_mut("teacher").map(other_network);
        }
    }
    if let Some(attack) = block
        .get_mut("selection")
        .and_then(|selection| selection.get_mut("attack"))
    {
        name_to_map(attack);
    }
}

fn other_network(other: &mut Value) {
    if let Some(defense) = other.get_mut("defense") {
        name_to_map(defense);
        // It cannot have one, and the message says so.
        defense.get_mut("teacher").map(other_network);
    }
}

fn name_to_map(value: &mut Value) {
    if let Value::String(name) = value {
        *value = serde_json::json!({ "name": name });
    }
}

fn items_to_maps(value: &mut Value) {
    if let Value::Array(items) = value {
        items.iter_mut().for_each(name_to_map);
    }
}

/// The first key of a field such as `recipe.optimizer`.
pub(crate) fn head(field: &str) -> &str {
    field.split(['.', '[']).next().unwrap_or_default()
}

/// Lays `path=value` over a document.
fn set(root: &mut Value, setting: &str) -> Result<(), String> {
    let (path, value) = setting
        .split_once('=')
        .ok_or_else(|| format!("`--set {setting}` is not of the form `path=value`, such as `recipe.epochs=2`"))?;
    let path = Path::default().dotted(path.trim());
    let unclear = |segment: &yaml::Segment| matches!(segment, yaml::Segment::Key(key) if key.contains(']'));
    if path.0.is_empty() || path.0.iter().any(unclear) {
        return Err(format!(
            "`--set {setting}` has no path that can be set; write keys with points and items by their numbers from 0, \
             such as `recipe.epochs=2` or `attacks[1].steps=10`"
        ));
    }
    let mut here = root;
    for segment in path.0 {
        here = match segment {
            yaml::Segment::Index(index) => here
                .get_mut(index)
                .ok_or_else(|| format!("`--set {setting}`: there is no element {index} to set"))?,
            yaml::Segment::Key(key) => {
                if here.is_null() {
                    *here = Value::Object(Map::new());
                }
                let map = here.as_object_mut();
                map.ok_or_else(|| format!("`--set {setting}`: `{key}` is not inside a map"))?
                    .entry(key)
                    .or_insert(Value::Null)
            }
        };
    }
    *here = yaml::parse_scalar(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
name: small
dataset: digits
threat: { norm: linf, epsilon: 0.1 }
networks: [tiny-cnn]
defenses: [standard, { name: trades, beta: 6 }]
attacks:
  - fgsm
  - { name: pgd, steps: 20 }
";

    fn parse(text: &str, settings: &[&str]) -> Result<Matrix, String> {
        let source = Source {
            file: "m.yaml".into(),
            text: text.into(),
        };
        let settings: Vec<_> = settings.iter().map(ToString::to_string).collect();
        let matrix = Matrix::parse(source, &settings).map_err(|error| error.to_string())?;
        if matrix.mistakes.is_empty() {
            return Ok(matrix);
        }
        Err(MatrixError::of(&matrix.source.file, matrix.mistakes).to_string())
    }

    #[track_caller]
    fn refuses(text: &str, expected: &str) {
        let error = parse(text, &[]).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_small_matrix_reads() {
        let matrix = parse(GOOD, &["seeds=[1, 2]", "recipe.epochs=3", "attacks[1].steps=7"]).unwrap();
        assert_eq!(matrix.blocks.len(), 1);
        assert_eq!(matrix.blocks[0].seeds, [1, 2]);
        assert_eq!(matrix.blocks[0].defenses[0]["name"], "standard");
        assert_eq!(matrix.blocks[0].recipe.as_ref().unwrap()["epochs"], 3);
        assert_eq!(matrix.blocks[0].attacks[1]["steps"], 7);
    }

    #[test]
    fn blocks_override_the_top() {
        let text = format!("{GOOD}blocks:\n  - seeds: [5]\n  - dataset: {{ name: mnist, validation: 7 }}\n");
        let matrix = parse(&text, &[]).unwrap();
        assert_eq!(matrix.blocks[0].seeds, [5]);
        assert_eq!(matrix.blocks[1].dataset.name, "mnist");
        assert_eq!(matrix.origins[0].path("seeds").to_string(), "blocks[0].seeds");
        assert_eq!(matrix.origins[1].path("seeds").to_string(), "seeds");
    }

    #[test]
    fn mistakes_are_placed() {
        refuses("name: [", "m.yaml:");
        refuses("- 1", "a matrix is a map");
        refuses(
            &GOOD.replace("networks", "netwroks"),
            "m.yaml:4:1: `netwroks`: unknown field",
        );
        refuses(&GOOD.replace("networks", "netwroks"), "did you mean `networks`?");
        refuses(
            &GOOD.replace("epsilon: 0.1", "epsilon: x"),
            "m.yaml:3:23: `threat.epsilon`",
        );
        refuses(
            &GOOD.replace("norm: linf, ", ""),
            "m.yaml:3:1: `threat`: missing field `norm`",
        );
        refuses(&GOOD.replace("name: small", "name: a/b"), "m.yaml:1:1: `name`");
        refuses(
            &GOOD.replace("dataset: digits", "dataset: { name: digits, verfiy: no }"),
            "did you mean `verify`?",
        );
        refuses(&format!("{GOOD}blocks: []\n"), "m.yaml:9:1: `blocks`: an empty list");
    }
}
