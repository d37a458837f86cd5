//! From a file to a matrix: every mistake at its line and column.

use std::path::Path as FilePath;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::block::Block;
use super::source::{MatrixError, Source};
use super::tables::{TableEntry, TableName};
use crate::yaml::{self, Path};

const HEAD_KEYS: &[&str] = &["name", "blocks", "tables"];
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
    /// Where it was read and what stood there.
    pub source: Source,
    /// Where each block's keys stand: under `blocks[i]`, or at the top for all blocks.
    origins: Vec<Map<String, Value>>,
}

impl Matrix {
    /// Reads a matrix. `settings` are `path=value` pairs laid over it.
    ///
    /// # Errors
    /// The file cannot be read, is not YAML, or does not have the form of a matrix.
    pub fn read(file: &FilePath, settings: &[String]) -> Result<Self, MatrixError> {
        let text = std::fs::read_to_string(file).map_err(|error| MatrixError::unreadable(file, error))?;
        Self::parse(
            Source {
                file: file.to_path_buf(),
                text,
            },
            settings,
        )
    }

    /// Reads a matrix's text, which stands in `source`.
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
        for key in root.keys() {
            if !HEAD_KEYS.contains(&key.as_str()) && !BLOCK_KEYS.contains(&key.as_str()) {
                let known = [HEAD_KEYS, BLOCK_KEYS].concat().join("`, `");
                let message = format!("unknown field `{key}`, expected one of `{known}`");
                return Err(source.error(&Path::default().key(key), message));
            }
        }
        let top = Path::default();
        let mut take = |key: &str| root.remove(key);
        let name: String = typed(&source, &top.key("name"), take("name").unwrap_or_default())?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            let message =
                "a matrix needs a `name` of letters, digits, `-`, `_` and `.`: it names the folder of the run";
            return Err(source.error(&top.key("name"), message));
        }
        let tables = match take("tables") {
            None => vec![TableEntry {
                name: TableName::WhiteBox,
                networks: None,
                datasets: None,
                title: None,
                worst_of: Vec::new(),
                style: None,
                form: None,
                bold: None,
                against: None,
            }],
            Some(mut value) => {
                names_to_maps(&mut value);
                typed(&source, &top.key("tables"), value)?
            }
        };
        let overrides: Vec<Map<String, Value>> = match take("blocks") {
            None => vec![Map::new()],
            Some(value) => typed(&source, &top.key("blocks"), value)?,
        };
        if overrides.is_empty() {
            return Err(source.error(
                &top.key("blocks"),
                "an empty list; leave `blocks` out or give it a block",
            ));
        }
        let mut blocks = Vec::new();
        for (i, over) in overrides.iter().enumerate() {
            let mut merged = root.clone();
            merged.extend(over.clone());
            normalise(&mut merged);
            let outer = |field: &str| {
                let key = field.split(['.', '[']).next().unwrap_or("");
                let base = if over.contains_key(key) {
                    top.key("blocks").index(i)
                } else {
                    top.clone()
                };
                base.dotted(field)
            };
            let block = from_value(Value::Object(merged)).map_err(|(field, message)| {
                let at = if field.is_empty() && overrides.len() > 1 {
                    top.key("blocks").index(i)
                } else {
                    outer(&field)
                };
                source.error(&at, message)
            })?;
            blocks.push(block);
        }
        Ok(Self {
            name,
            blocks,
            tables,
            source,
            origins: overrides,
        })
    }

    /// Where a field of a block stands in the file.
    pub(crate) fn path(&self, block: usize, field: &str) -> Path {
        let key = field.split(['.', '[']).next().unwrap_or("");
        let base = if self.origins[block].contains_key(key) {
            Path::default().key("blocks").index(block)
        } else {
            Path::default()
        };
        base.dotted(field)
    }

    /// An error about a field of a block.
    pub(crate) fn error(&self, block: usize, field: &str, message: impl Into<String>) -> MatrixError {
        self.source.error(&self.path(block, field), message)
    }
}

fn typed<T: DeserializeOwned>(source: &Source, path: &Path, value: Value) -> Result<T, MatrixError> {
    from_value(value).map_err(|(field, message)| source.error(&path.dotted(&field), message))
}

/// A typed value, or the field at fault and what is wrong with it.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        (
            if path == "." { String::new() } else { path },
            error.into_inner().to_string(),
        )
    })
}

/// Lets a bare name stand for a map with nothing but that name.
fn normalise(block: &mut Map<String, Value>) {
    for key in ["dataset", "defenses", "attacks"] {
        block.get_mut(key).map(names_to_maps);
    }
    if let Some(limit) = block.get_mut("dataset").and_then(|dataset| dataset.get_mut("limit"))
        && limit.is_u64()
    {
        *limit = serde_json::json!({"train": limit, "test": limit});
    }
    if let Some(transfer) = block.get_mut("transfer") {
        transfer.get_mut("attacks").map(names_to_maps);
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
        names_to_maps(attack);
    }
}

fn other_network(other: &mut Value) {
    other.get_mut("defense").map(names_to_maps);
}

fn names_to_maps(value: &mut Value) {
    match value {
        Value::String(name) => *value = serde_json::json!({ "name": name }),
        Value::Array(items) => items.iter_mut().filter(|item| item.is_string()).for_each(names_to_maps),
        _ => {}
    }
}

/// Lays `path=value` over a document.
fn set(root: &mut Value, setting: &str) -> Result<(), String> {
    let (path, value) = setting
        .split_once('=')
        .ok_or_else(|| format!("`--set {setting}` is not of the form `path=value`, such as `recipe.epochs=2`"))?;
    let mut here = root;
    for segment in Path::default().dotted(path.trim()).0 {
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
        Matrix::parse(source, &settings).map_err(|error| error.to_string())
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
        assert_eq!(matrix.path(0, "seeds").to_string(), "blocks[0].seeds");
        assert_eq!(matrix.path(1, "seeds").to_string(), "seeds");
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
