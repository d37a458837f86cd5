//! Adversarial training: one file per defense, and what a recipe is made of.
//!
//! A defense turns a batch into the objective of one training step. It does no I/O and reads no
//! clock and no global random state.

mod optimizer;
mod recipe;

mod inner;

mod natural;
mod standard;

mod alp;
mod clp;
mod trades;

mod dynamic;
mod mart;
mod mma;

#[cfg(test)]
mod reference_cases;
#[cfg(test)]
#[path = "../../attacks/src/testing.rs"]
#[allow(dead_code, reason = "the tests of two crates share it")]
mod testing;

use std::collections::BTreeMap;
use std::sync::Arc;

use attacks::{Attack, Batch, Cost, Invalid, Perturbed, Registry, Setting, Threat};
use candle_core::{Result, Tensor};
use models::{Classifier, Dropout, Mode};
use random::{Purpose, Stream};

pub use alp::{Alp, AlpForm};
pub use clp::{Clp, ClpForm};
pub use dynamic::Dynamic;
pub use inner::InnerAttack;
pub use mart::{Boost, Mart};
pub use mma::{Mma, MmaLoss};
pub use natural::Natural;
pub use optimizer::{Adam, Descent, Sgd, clip_gradients};
pub use recipe::{Augmentation, Decay, Length, Optimizer, Recipe, Schedule, shared_recipe};
pub use standard::Standard;
pub use trades::Trades;

/// One training step as a defense sees it.
pub struct Step<'a> {
    /// The network in training.
    pub model: &'a dyn Classifier,
    /// The augmented batch. Ids index the training examples.
    pub batch: &'a Batch,
    /// The threat model.
    pub threat: &'a Threat,
    /// This step's draws.
    pub random: Stream,
    /// Epochs finished before this step, counted from 0.
    pub epoch: u64,
    /// What the defense remembers of each training example. Kept in checkpoints.
    pub memory: &'a mut Memory,
    /// Passes made so far in this step.
    pub cost: Cost,
    /// The images of the last inner attack, for the log.
    pub perturbed: Option<Tensor>,
    forwards: u64,
}

impl<'a> Step<'a> {
    /// A step in which nothing has happened yet.
    pub fn new(
        model: &'a dyn Classifier,
        batch: &'a Batch,
        threat: &'a Threat,
        random: Stream,
        epoch: u64,
        memory: &'a mut Memory,
    ) -> Self {
        Self {
            model,
            batch,
            threat,
            random,
            epoch,
            memory,
            cost: Cost::default(),
            perturbed: None,
            forwards: 0,
        }
    }

    /// Logits in training mode: the batch's statistics, running statistics updated, dropout drawn.
    /// The order of these calls is part of a defense's definition, for the running statistics see it.
    pub fn train_logits(&mut self, images: &Tensor) -> Result<Tensor> {
        self.train_logits_of(images, &self.batch.ids)
    }

    /// As [`train_logits`](Self::train_logits), of images that are not those of the whole batch.
    pub fn train_logits_of(&mut self, images: &Tensor, ids: &[u64]) -> Result<Tensor> {
        let random = self.random.of(Purpose::Dropout).at(self.forwards);
        self.forwards += 1;
        self.cost.forwards += images.dim(0)? as u64;
        let dropout = Dropout { random: &random, ids };
        self.model.logits(images, Mode::Train(Some(dropout)))
    }

    /// The batch's images as an attack leaves them. They are kept in [`perturbed`](Self::perturbed).
    pub fn attack(&mut self, attack: &dyn Attack, threat: &Threat) -> Result<Tensor> {
        let found = attack.perturb(self.model, self.batch, threat, &self.random)?;
        Ok(self.keep(found))
    }

    /// The images of an attack, its cost counted.
    pub fn keep(&mut self, found: Perturbed) -> Tensor {
        self.cost += found.cost;
        self.perturbed = Some(found.images.clone());
        found.images
    }
}

/// What a defense remembers of each training example from step to step: named columns, one value
/// per example.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Column by name; each as long as the training split.
    pub columns: BTreeMap<String, Vec<f32>>,
}

/// An adversarial training method.
pub trait Defense: std::fmt::Debug + Send + Sync {
    /// The scalar to be minimised in this step, with gradients to the parameters.
    fn objective(&self, step: &mut Step<'_>) -> Result<Tensor>;

    /// The memory before the first step, for `examples` training examples.
    fn memory(&self, examples: usize) -> Memory {
        let _ = examples;
        Memory::default()
    }

    /// How the method's authors train in this setting, with where they say so in the
    /// documentation of the implementation. `None`: they give no recipe.
    fn authors_recipe(&self, setting: &Setting) -> Option<Recipe> {
        let _ = setting;
        None
    }
}

/// The defenses of this crate.
pub fn builtin() -> Registry<dyn Defense> {
    let mut registry: Registry<dyn Defense> = Registry::new("defense");
    registry.add::<Natural>(|defense| Arc::new(defense));
    registry.add::<Standard>(|defense| Arc::new(defense));
    registry.add::<Alp>(|defense| Arc::new(defense));
    registry.add::<Clp>(|defense| Arc::new(defense));
    registry.add::<Trades>(|defense| Arc::new(defense));
    registry.add::<Mma>(|defense| Arc::new(defense));
    registry.add::<Mart>(|defense| Arc::new(defense));
    registry.add::<Dynamic>(|defense| Arc::new(defense));
    registry
}

/// Refuses a weight that is negative or not finite.
pub(crate) fn check_weight(field: &str, weight: f64) -> std::result::Result<(), Invalid> {
    if weight.is_finite() && weight >= 0.0 {
        return Ok(());
    }
    Err(Invalid::new(
        field,
        format!("{field} is {weight}; it must be 0 or more"),
    ))
}

/// The value of a field that [`attacks::Method::resolve`] has filled.
pub(crate) fn resolved<T: Copy>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| candle_core::Error::msg(format!("{field} is open; resolve the configuration first")))
}
