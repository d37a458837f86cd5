//! One comparison as its author writes it. These types mirror the YAML and do nothing; `resolve` fills the defaults.

use std::fmt;
use std::path::PathBuf;

use attacks::Threat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One comparison: every defense on every network, under every attack. Every key may stand at the
/// top of the matrix instead, for all blocks.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// The data set: a name, or a map with its options.
    pub dataset: DatasetEntry,
    /// The perturbations the adversary may make.
    pub threat: Threat,
    /// The networks, such as `resnet18` or `wrn-34-10`.
    pub networks: Vec<String>,
    /// One training per seed.
    #[serde(default = "default_seeds")]
    pub seeds: Vec<u64>,
    /// How every defense trains: `shared`, `authors`, or a map (`from: authors` starts from
    /// theirs). A defense's own `recipe` is laid over it.
    #[serde(default)]
    pub recipe: Option<Value>,
    /// The defenses: each a name, or a map with `name` and the defense's own fields.
    pub defenses: Vec<Map<String, Value>>,
    /// The white-box attacks: each a name, or a map with `name` and the attack's own fields.
    /// Accuracy on clean images is always measured as well.
    #[serde(default)]
    pub attacks: Vec<Map<String, Value>>,
    /// Another network that is trained first: the training examples without labels get its classes as labels, and
    /// defenses with `treat` ask it which examples it misclassifies. A defense's own `teacher` stands for it, and
    /// `teacher: none` is none.
    #[serde(default)]
    pub teacher: Option<OtherNetwork>,
    /// What the examples without labels count (`labeled` in `dataset`). A defense's own `unlabeled` stands for it.
    #[serde(default)]
    pub unlabeled: Option<Unlabeled>,
    /// Black-box evaluation by transfer.
    #[serde(default)]
    pub transfer: Option<Transfer>,
    /// Which checkpoints are evaluated.
    #[serde(default = "default_checkpoints")]
    pub checkpoints: Vec<Checkpoint>,
    /// How the best checkpoint is chosen.
    #[serde(default)]
    pub selection: Selection,
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
pub struct DatasetEntry {
    /// Its name, as `rampart ls datasets` shows it.
    pub name: String,
    /// Training examples held out to choose the best checkpoint.
    #[serde(default)]
    pub validation: usize,
    /// Deterministic subsets, with the classes' shares kept.
    #[serde(default)]
    pub limit: Limit,
    /// This many of the training examples keep their labels, with the classes' shares kept; a `teacher` labels the
    /// others. All keep them unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labeled: Option<usize>,
    /// Additional unlabeled images, which a `teacher` labels: a safetensors file with `images`, bytes `[N, C, H, W]`, by its
    /// name in the data folder or its whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<PathBuf>,
    /// `false` accepts files whose checksums are not the official ones. Every table then says so.
    #[serde(default = "yes")]
    pub verify: bool,
}

fn yes() -> bool {
    true
}

/// How many examples are kept. `null`: all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Of the training split, before validation examples are held out.
    #[serde(default)]
    pub train: Option<usize>,
    /// Of the test split.
    #[serde(default)]
    pub test: Option<usize>,
}

/// Which of a training's checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Checkpoint {
    /// The epoch with the highest robust accuracy on the selection split.
    Best,
    /// The end of training.
    Last,
}

impl DatasetEntry {
    /// Whether there are training examples without labels.
    pub fn has_unlabeled(&self) -> bool {
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
pub struct Selection {
    /// On which examples. `test` repeats a practice of the literature that overstates robustness;
    /// every table then says so.
    pub split: SelectionSplit,
    /// The attack that measures robust accuracy; PGD with 10 steps of ε/4 unless given.
    pub attack: Option<Map<String, Value>>,
    /// Measured every this many epochs, and after the last.
    pub every: u64,
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
pub enum SelectionSplit {
    /// The examples held out of the training split.
    Validation,
    /// The test split itself.
    Test,
}

/// Black-box evaluation: adversarial images are made on a source network and counted on every
/// defense.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// The source: one network that is trained for this alone.
    #[serde(default)]
    pub source: Option<OtherNetwork>,
    /// In its place: which of the matrix's own networks are sources, each with the seed and checkpoint of its target.
    #[serde(default)]
    pub sources: Option<Sources>,
    /// The attacks made on it.
    pub attacks: Vec<Map<String, Value>>,
}

/// Which of a matrix's own networks images are made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sources {
    /// Every defense's, the target's own among them: a matrix of sources × targets.
    Defenses,
}

/// A network besides those that are compared: what transferred attacks are made on, or a teacher.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtherNetwork {
    /// How it was trained: a name, or a map as in `defenses`.
    pub defense: Map<String, Value>,
    /// Its architecture; that of the network it serves unless given.
    #[serde(default)]
    pub network: Option<String>,
    /// Its seed, one for all seeds of the comparison. As a source not one of the targets' seeds, or a target would be
    /// attacked through itself.
    #[serde(default = "default_other_seed")]
    pub seed: u64,
    /// Its checkpoint.
    #[serde(default = "default_other_checkpoint")]
    pub checkpoint: Checkpoint,
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
pub struct Unlabeled {
    /// The weight of the loss of one of them, where a labeled example's is 1.
    pub weight: f64,
    /// The share of each batch that is taken from them. `null`: every example, labeled or not, comes once an epoch.
    pub share: Option<f64>,
}

impl Default for Unlabeled {
    fn default() -> Self {
        Self {
            weight: 1.0,
            share: None,
        }
    }
}

impl From<Checkpoint> for results::Checkpoint {
    fn from(checkpoint: Checkpoint) -> Self {
        match checkpoint {
            Checkpoint::Best => Self::Best,
            Checkpoint::Last => Self::Last,
        }
    }
}
