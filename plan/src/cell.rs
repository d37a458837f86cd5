//! The cells of a plan: networks to train, and checkpoints to evaluate.

use attacks::{Attack, Configured, Setting, Threat};
use defenses::{Defense, Recipe};
use models::Architecture;
use results::{Kind, Selection};

use crate::matrix::{Checkpoint, DatasetEntry, SelectionSplit, Unlabeled};

/// One cell of a plan, by its index there. Trainings come before evaluations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    /// A network to train.
    Training(usize),
    /// A checkpoint to evaluate.
    Evaluation(usize),
}

impl Cell {
    /// What is done in it: `train` or `attack`.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Training(_) => "train",
            Self::Evaluation(_) => "attack",
        }
    }
}

/// One network to train.
#[derive(Debug, Clone)]
pub struct Training {
    /// Hash of everything below that affects a number.
    pub key: String,
    /// The same as JSON with every default filled: the resolved configuration. `key` is its hash.
    pub config: String,
    /// Readable name, part of the folder's name.
    pub slug: String,
    /// The data set and how it is cut.
    pub dataset: DatasetEntry,
    /// Threat model, image size and classes, on which the defaults of methods depend.
    pub setting: Setting,
    /// The network's name, such as `resnet18`.
    pub network: String,
    /// The same network, ready to be built.
    pub architecture: Architecture,
    /// The defense with every field filled.
    pub defense: Configured<dyn Defense>,
    /// How tables name the defense.
    pub label: String,
    /// Epochs, optimizer, schedule and augmentation.
    pub recipe: Recipe,
    /// How tables name the recipe: `shared`, `authors`, `shared, changed`.
    pub recipe_label: String,
    /// How the best checkpoint is chosen.
    pub selection: SelectionRule,
    /// Seed of every random draw.
    pub seed: u64,
    /// Labels and groups that come from a teacher.
    pub supervision: Supervision,
}

/// What a training takes from a teacher. Empty for most.
#[derive(Debug, Clone, Default)]
pub struct Supervision {
    /// The trained network whose predictions are used.
    pub teacher: Option<Teacher>,
    /// The weight of unlabeled examples. `None`: they are not used.
    pub unlabeled: Option<Unlabeled>,
}

/// A trained network whose predictions on the training examples are used.
#[derive(Debug, Clone)]
pub struct Teacher {
    /// Index of its training.
    pub training: usize,
    /// Key of that training.
    pub key: String,
    /// Which checkpoint predicts.
    pub checkpoint: Checkpoint,
}

/// How the best checkpoint is chosen.
#[derive(Debug, Clone)]
pub struct SelectionRule {
    /// `None`: there are no examples to choose on, so there is no best checkpoint.
    pub split: Option<SelectionSplit>,
    /// The attack that measures robust accuracy.
    pub attack: Configured<dyn Attack>,
    /// Measured every this many epochs, and after the last one.
    pub every: u64,
}

impl SelectionRule {
    /// Which images chose a checkpoint, as rows record it.
    pub fn chose(&self, checkpoint: Checkpoint) -> Selection {
        match (checkpoint, self.split) {
            (Checkpoint::Last, _) | (_, None) => Selection::None,
            (_, Some(SelectionSplit::Validation)) => Selection::Validation,
            (_, Some(SelectionSplit::Test)) => Selection::Test,
        }
    }
}

/// One checkpoint under one attack.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Hash of everything below that affects a number, and of the training.
    pub key: String,
    /// The same as JSON with every default filled: the resolved configuration. `key` is its hash.
    pub config: String,
    /// Readable name, part of the folder's name.
    pub slug: String,
    /// Index of the training whose network is evaluated.
    pub target: usize,
    /// The cut of the data set whose test images are used. A training does not depend on that part of a cut, so the
    /// target's own cut may differ.
    pub dataset: DatasetEntry,
    /// Which checkpoint is evaluated.
    pub checkpoint: Checkpoint,
    /// The attack with every field filled.
    pub attack: Configured<dyn Attack>,
    /// How tables name the attack.
    pub label: String,
    /// Norm and radius.
    pub threat: Threat,
    /// The network on which the images are made, for a transferred attack.
    pub source: Option<TransferSource>,
}

impl Evaluation {
    /// What the evaluation does to the images.
    pub fn kind(&self) -> Kind {
        match &self.source {
            Some(_) => Kind::Transfer,
            None if self.attack.name == "natural" => Kind::Natural,
            None if self.attack.method.by_queries() => Kind::Query,
            None => Kind::WhiteBox,
        }
    }
}

/// The network on which transferred images are made.
#[derive(Debug, Clone)]
pub struct TransferSource {
    /// Index of its training.
    pub training: usize,
    /// Which of its checkpoints.
    pub checkpoint: Checkpoint,
    /// How tables name it, such as `Natural / resnet18`.
    pub label: String,
}
