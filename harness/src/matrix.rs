//! The matrix as its author writes it. These types mirror the YAML and do nothing; `plan` resolves
//! them.

mod read;

use std::fmt;
use std::path::PathBuf;

use attacks::Threat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::read::from_value;
use crate::look::{Form, Style};
use crate::suggest::with_suggestion;
use crate::yaml::{self, Path, Place};

/// A matrix, with what is needed to point into its text.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    /// Names the folder of the run.
    pub(crate) name: String,
    /// The comparisons, at least one.
    pub(crate) blocks: Vec<Block>,
    /// The tables to typeset.
    pub(crate) tables: Vec<TableEntry>,
    /// Where it was read and what stood there.
    pub(crate) source: Source,
    /// Where each block's keys stand: under `blocks[i]`, or at the top for all blocks.
    origins: Vec<Map<String, Value>>,
}

/// One comparison: every defense on every network, under every attack. Every key may stand at the
/// top of the matrix instead, for all blocks.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Block {
    /// The data set: a name, or a map with its options.
    pub(crate) dataset: DatasetEntry,
    /// The perturbations the adversary may make.
    pub(crate) threat: Threat,
    /// The networks, such as `resnet18` or `wrn-34-10`.
    pub(crate) networks: Vec<String>,
    /// One training per seed.
    #[serde(default = "default_seeds")]
    pub(crate) seeds: Vec<u64>,
    /// How every defense trains: `shared`, `authors`, or a map (`from: authors` starts from
    /// theirs). A defense's own `recipe` is laid over it.
    #[serde(default)]
    pub(crate) recipe: Option<Value>,
    /// The defenses: each a name, or a map with `name` and the defense's own fields.
    pub(crate) defenses: Vec<Map<String, Value>>,
    /// The white-box attacks: each a name, or a map with `name` and the attack's own fields.
    /// Accuracy on clean images is always measured as well.
    #[serde(default)]
    pub(crate) attacks: Vec<Map<String, Value>>,
    /// Another network that is trained first: the training examples without labels get its classes as labels, and
    /// defenses with `treat` ask it which examples it misclassifies. A defense's own `teacher` stands for it, and
    /// `teacher: none` is none.
    #[serde(default)]
    pub(crate) teacher: Option<OtherNetwork>,
    /// What the examples without labels count (`labeled` in `dataset`). A defense's own `unlabeled` stands for it.
    #[serde(default)]
    pub(crate) unlabeled: Option<Unlabeled>,
    /// Black-box evaluation by transfer.
    #[serde(default)]
    pub(crate) transfer: Option<Transfer>,
    /// Which checkpoints are evaluated.
    #[serde(default = "default_checkpoints")]
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// How the best checkpoint is chosen.
    #[serde(default)]
    pub(crate) selection: Selection,
}

fn default_seeds() -> Vec<u64> {
    vec![0]
}

fn default_checkpoints() -> Vec<Checkpoint> {
    vec![Checkpoint::Best]
}

/// A data set and how it is cut.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatasetEntry {
    /// Its name, as `harness ls datasets` shows it.
    pub(crate) name: String,
    /// Training examples held out to choose the best checkpoint.
    #[serde(default)]
    pub(crate) validation: usize,
    /// Deterministic subsets, with the classes' shares kept.
    #[serde(default)]
    pub(crate) limit: Limit,
    /// So many of the training examples keep their labels, with the classes' shares kept; a `teacher` labels the
    /// others. All keep them unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) labeled: Option<usize>,
    /// Unlabeled images more, which a `teacher` labels: a safetensors file with `images`, bytes `[N, C, H, W]`, by its
    /// name in the data folder or its whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) extra: Option<PathBuf>,
    /// `false` accepts files whose checksums are not the official ones. Every table then says so.
    #[serde(default = "yes")]
    pub(crate) verify: bool,
}

fn yes() -> bool {
    true
}

/// How many examples are kept. `null`: all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    /// Of the training split, before validation examples are held out.
    #[serde(default)]
    pub(crate) train: Option<usize>,
    /// Of the test split.
    #[serde(default)]
    pub(crate) test: Option<usize>,
}

/// Which of a training's checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Checkpoint {
    /// The epoch with the highest robust accuracy on the selection split.
    Best,
    /// The end of training.
    Last,
}

impl DatasetEntry {
    /// Whether there are training examples without labels.
    pub(crate) fn has_unlabeled(&self) -> bool {
        self.labeled.is_some() || self.extra.is_some()
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Best => "best",
            Self::Last => "last",
        })
    }
}

/// How the best checkpoint is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Selection {
    /// On which examples. `test` repeats a practice of the literature that overstates robustness;
    /// every table then says so.
    pub(crate) split: SelectionSplit,
    /// The attack that measures robust accuracy; PGD with 10 steps of ε/4 unless given.
    pub(crate) attack: Option<Map<String, Value>>,
    /// Measured after every so many epochs, and after the last.
    pub(crate) every: u64,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            split: SelectionSplit::Validation,
            attack: None,
            every: 1,
        }
    }
}

/// Where the best checkpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SelectionSplit {
    /// The examples held out of the training split.
    Validation,
    /// The test split itself.
    Test,
}

/// Black-box evaluation: adversarial images are made on a source network and counted on every
/// defense.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Transfer {
    /// The source: one network that is trained for this alone.
    #[serde(default)]
    pub(crate) source: Option<OtherNetwork>,
    /// In its place: which of the matrix's own networks are sources, each with the seed and checkpoint of its target.
    #[serde(default)]
    pub(crate) sources: Option<Sources>,
    /// The attacks made on it.
    pub(crate) attacks: Vec<Map<String, Value>>,
}

/// Which of a matrix's own networks images are made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sources {
    /// Every defense's, the target's own among them: a matrix of sources × targets.
    Defenses,
}

/// A network beside those that are compared: what transferred attacks are made on, or a teacher.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OtherNetwork {
    /// How it was trained: a name, or a map as in `defenses`.
    pub(crate) defense: Map<String, Value>,
    /// Its architecture; that of the network it serves unless given.
    #[serde(default)]
    pub(crate) network: Option<String>,
    /// Its seed, one for all seeds of the comparison. As a source not one of the targets' seeds, or a target would be
    /// attacked through itself.
    #[serde(default = "default_other_seed")]
    pub(crate) seed: u64,
    /// Its checkpoint.
    #[serde(default = "default_other_checkpoint")]
    pub(crate) checkpoint: Checkpoint,
}

fn default_other_seed() -> u64 {
    1000
}

fn default_other_checkpoint() -> Checkpoint {
    Checkpoint::Last
}

/// What training examples without labels count, which a teacher labels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Unlabeled {
    /// The weight of the loss of one of them, where a labeled example's is 1.
    pub(crate) weight: f64,
    /// The share of each batch that is taken from them. `null`: every example, labeled or not, comes once an epoch.
    pub(crate) share: Option<f64>,
}

impl Default for Unlabeled {
    fn default() -> Self {
        Self {
            weight: 1.0,
            share: None,
        }
    }
}

/// A table to typeset.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableEntry {
    /// Which table.
    pub(crate) name: TableName,
    /// Only these networks; all unless given.
    #[serde(default)]
    pub(crate) networks: Option<Vec<String>>,
    /// Only these data sets; all unless given.
    #[serde(default)]
    pub(crate) datasets: Option<Vec<String>>,
    /// The heading.
    #[serde(default)]
    pub(crate) title: Option<String>,
    /// Columns more: the worst case of each image over a list of attacks, by their labels; `transfer/PGD-20` for one
    /// that is transferred.
    #[serde(default)]
    pub(crate) worst_of: Vec<Vec<String>>,
    /// What stands beside a mean; the deviation over seeds unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) style: Option<Style>,
    /// A line for each defense, or for each number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) form: Option<Form>,
    /// Whether the highest number of a column is bold, and those tied with it are marked; so unless `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bold: Option<bool>,
    /// Label of a defense: numbers that differ from its own by more than chance are marked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) against: Option<String>,
}

/// The tables of the paper, and some more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TableName {
    /// White-box robustness.
    WhiteBox,
    /// Robustness to transferred attacks.
    BlackBox,
    /// White-box robustness of wide networks, best and last checkpoint.
    WideNetwork,
    /// White-box robustness of networks trained with unlabeled data.
    Unlabeled,
    /// Every attack of the matrix side by side: white-box, by transfer and by queries.
    Summary,
    /// For every transferred attack a table of sources × targets.
    Transfer,
}

/// A matrix file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The file.
    pub(crate) file: PathBuf,
    /// Its text.
    pub(crate) text: String,
}

/// A mistake in a matrix.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {}{message}", file.display(), place_suffix(.place), at_prefix(.path))]
pub(crate) struct MatrixError {
    file: PathBuf,
    place: Option<Place>,
    path: String,
    message: String,
}

fn place_suffix(place: &Option<Place>) -> String {
    place.map_or_else(String::new, |Place { line, column }| format!(":{line}:{column}"))
}

fn at_prefix(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("`{path}`: ")
    }
}

impl Source {
    /// An error at a path of this file.
    pub(crate) fn error(&self, path: &Path, message: impl Into<String>) -> MatrixError {
        MatrixError {
            file: self.file.clone(),
            place: yaml::locate(&self.text, path),
            path: path.to_string(),
            message: with_suggestion(&message.into()),
        }
    }
}
