//! Adversarial training: one file per defense, and what a recipe is made of.
//!
//! A defense turns a batch into the objective of one training step. It does no I/O and reads no
//! clock and no global random state.

mod averaging;
mod awp;
mod optimizer;
mod recipe;
mod schedule;

mod inner;
mod taught;

mod natural;
mod standard;

mod alp;
mod clp;
mod trades;

mod dynamic;
mod mart;
mod mma;

#[cfg(test)]
mod reference_losses;
#[cfg(test)]
mod reference_training;
#[cfg(test)]
#[path = "../../attacks/src/testing.rs"]
#[allow(dead_code, reason = "the tests of two crates share it")]
mod testing;

use std::collections::BTreeMap;
use std::sync::Arc;

use attacks::{Attack, Batch, Cost, Invalid, Registry, Setting, Threat};
use candle_core::{Result, Tensor};
use models::{Classifier, Dropout, Mode};
use random::{Purpose, Stream};

pub use alp::{Alp, AlpForm};
pub use averaging::Averaging;
pub use awp::{Awp, Moved};
pub use clp::{Clp, ClpForm};
pub use dynamic::Dynamic;
pub use inner::InnerAttack;
pub use mart::{Boost, Mart};
pub use mma::{Mma, MmaLoss};
pub use natural::Natural;
pub use optimizer::{Adam, Descent, Sgd, clip_gradients};
pub use recipe::{Augmentation, Decay, Length, Optimizer, Recipe, shared_recipe};
pub use schedule::Schedule;
pub use standard::{Standard, Treat, Treatment};
pub use taught::{Group, Taught};
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
    /// What a teacher says of the batch.
    pub taught: Taught,
    /// Passes made so far in this step.
    pub cost: Cost,
    /// The images of the last inner attack, for the log.
    pub perturbed: Option<Tensor>,
    forwards: u64,
    /// What inner attacks found, in the order of their calls.
    crafted: Vec<Vec<Tensor>>,
    /// Which of them comes next, once they are used again.
    next: Option<usize>,
    weighed: bool,
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
            taught: Taught::default(),
            cost: Cost::default(),
            perturbed: None,
            forwards: 0,
            crafted: Vec::new(),
            next: None,
            weighed: false,
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

    /// The scalar of one loss per example `[B]`: their mean, in which an example weighs what a teacher's word is worth
    /// ([`Taught::weights`]). Every defense ends with it.
    pub fn mean(&mut self, losses: &Tensor) -> Result<Tensor> {
        self.weighed = true;
        self.taught.mean(losses)
    }

    /// Whether the objective took the weights of the examples for nothing: it never asked for [`mean`](Self::mean).
    pub fn ignores_weights(&self) -> bool {
        self.taught.weights.is_some() && !self.weighed
    }

    /// The batch's images as an attack leaves them. They are kept in [`perturbed`](Self::perturbed).
    pub fn attack(&mut self, attack: &dyn Attack, threat: &Threat) -> Result<Tensor> {
        let found = self.craft(|step| {
            let found = attack.perturb(step.model, step.batch, threat, &step.random)?;
            step.cost += found.cost;
            Ok(vec![found.images])
        })?;
        let images = found[0].clone();
        self.perturbed = Some(images.clone());
        Ok(images)
    }

    /// What an inner search finds. In an objective's second evaluation it is what the search found in the first, and
    /// nothing is searched: see [`again`](Self::again). So whatever an attack leaves behind, such as memory of an
    /// example, belongs into `search`. The tensors must be detached.
    pub fn craft(&mut self, search: impl FnOnce(&mut Self) -> Result<Vec<Tensor>>) -> Result<Vec<Tensor>> {
        if let Some(next) = &mut self.next {
            let Some(found) = self.crafted.get(*next) else {
                candle_core::bail!("the objective attacks oftener in its second evaluation than in its first");
            };
            *next += 1;
            return Ok(found.clone());
        }
        let found = search(self)?;
        self.crafted.push(found.clone());
        Ok(found)
    }

    /// From here on inner attacks give what they gave in this step before, in the same order: for another evaluation
    /// of the objective at other parameters.
    pub fn again(&mut self) {
        self.next = Some(0);
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

    /// The examples that it treats otherwise than the rest, which a teacher must name.
    fn treats(&self) -> Option<Group> {
        None
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Net, check_entries, settings, waves};
    use attacks::{Family, Norm};
    use candle_core::DType;
    use reference::Case;

    fn net() -> Net {
        let case = reference::root().join("attacks/net_conv.safetensors");
        Net::read(&Case::read(&case), "", DType::F64)
    }

    #[test]
    fn every_defense_can_be_configured() {
        check_entries(&builtin());
    }

    #[test]
    fn every_objective_is_finite_and_reaches_every_parameter() {
        let net = net();
        let batch = Batch {
            ids: (0..6).collect(),
            ..waves(6, [3, 8, 8], 10)
        };
        for setting in settings() {
            for entry in builtin().entries() {
                let quick = match entry.name {
                    "natural" => serde_json::json!({}),
                    "mma" => serde_json::json!({"steps": 2, "search_steps": 2}),
                    _ => serde_json::json!({"attack": {"steps": 2}}),
                };
                let defense = builtin().parse(entry.name, quick, &setting).unwrap().method;
                let mut memory = defense.memory(6);
                for epoch in [0, 1] {
                    let what = format!("{} in {setting:?}", entry.name);
                    let stream = Stream::new(1).at(epoch);
                    let mut step = Step::new(&net, &batch, &setting.threat, stream, epoch, &mut memory);
                    let objective = defense.objective(&mut step).unwrap();
                    assert_eq!(objective.rank(), 0, "{what}");
                    assert!(reference::doubles(&objective)[0].is_finite(), "{what}");
                    assert!(step.cost.forwards >= 6, "{what}");
                    assert_eq!(step.perturbed.is_some(), entry.name != "natural", "{what}");
                    let gradients = objective.backward().unwrap();
                    for (name, parameter) in net.parameters() {
                        let gradient = gradients.get(parameter).unwrap_or_else(|| panic!("{what}: {name}"));
                        let gradient = reference::doubles(gradient);
                        assert!(gradient.iter().all(|value| value.is_finite()), "{what}: {name}");
                        assert!(gradient.iter().any(|&value| value != 0.0), "{what}: {name}");
                    }
                }
            }
        }
    }

    #[test]
    fn recipes_of_the_authors_can_be_followed() {
        let mut given = BTreeMap::new();
        for setting in settings() {
            for entry in builtin().entries() {
                let defense = builtin()
                    .parse(entry.name, serde_json::json!({}), &setting)
                    .unwrap()
                    .method;
                if let Some(recipe) = defense.authors_recipe(&setting) {
                    assert_eq!(recipe.check(), Ok(()), "{}", entry.name);
                    *given.entry(entry.name).or_insert(0) += 1;
                }
            }
        }
        let expected = [("dynamic", 1), ("mart", 1), ("mma", 2), ("standard", 2), ("trades", 2)];
        assert_eq!(given.into_iter().collect::<Vec<_>>(), expected);
        let wide = Setting {
            network: "wrn-34-10".into(),
            ..testing::setting(Family::Cifar, Norm::Linf)
        };
        let mart = builtin().parse("mart", serde_json::json!({}), &wide).unwrap();
        assert_eq!(mart.config["lambda"], 6.0);
        assert_eq!(mart.method.authors_recipe(&wide).unwrap().length, Length::Epochs(90));
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let setting = testing::setting(Family::Cifar, Norm::Linf);
        let check =
            |name: &str, config: serde_json::Value, expected: &str| match builtin().parse(name, config, &setting) {
                Err(attacks::ParseError::Field { field, message }) => assert_eq!(field, expected, "{message}"),
                other => panic!("{name}: {other:?}"),
            };
        check("trades", serde_json::json!({"beta": -1}), "beta");
        check("trades", serde_json::json!({"attack": {"steps": 0}}), "attack.steps");
        check(
            "trades",
            serde_json::json!({"attack": {"start": "none"}}),
            "attack.start",
        );
        check(
            "standard",
            serde_json::json!({"attack": {"epsilon": 8}}),
            "attack.epsilon",
        );
        check("standard", serde_json::json!({"attack": {"speed": 8}}), "attack.speed");
        check("mart", serde_json::json!({"share": 1.5}), "share");
        check("mma", serde_json::json!({"clean_weight": 2}), "clean_weight");
        check(
            "mma",
            serde_json::json!({"d_max": "1/255", "min_radius": "2/255"}),
            "min_radius",
        );
        check("dynamic", serde_json::json!({"attack": {"loss": "kl"}}), "attack.loss");
        check(
            "clp",
            serde_json::json!({"form": "pair", "attack": {"steps": 3}}),
            "attack",
        );
    }
}
