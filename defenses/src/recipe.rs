//! The recipe of a training: everything but the objective.

use attacks::{Family, Invalid, Setting};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Averaging, Awp, Decay, Length, Optimizer, Schedule};

/// The largest whole number of a recipe: epochs, steps, examples of a batch.
const MOST: u64 = 1_000_000_000;

/// A training recipe, complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// How long to train.
    pub length: Length,
    /// Examples per step; the last step of an epoch takes what is left.
    pub batch: usize,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// How the learning rate falls.
    pub schedule: Schedule,
    /// The largest Euclidean norm of the whole gradient; longer ones are scaled down to it.
    #[serde(default)]
    pub clip_gradient: Option<f64>,
    /// What is done to each training image, in this order.
    #[serde(default)]
    pub augment: Vec<Augmentation>,
    /// Adversarial weight perturbation, of any defense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awp: Option<Awp>,
    /// Averaged weights, of any defense: they are judged and kept in place of the last ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub averaging: Option<Averaging>,
}

impl Recipe {
    /// Refuses values with which no network can be trained.
    pub fn check(&self) -> Result<(), Invalid> {
        let written = serde_json::to_value(self).expect("a recipe is plain data");
        attacks::check_bounds(&written, MOST)?;
        let (unit, length) = match self.length {
            Length::Epochs(epochs) => ("epochs", epochs),
            Length::Steps(steps) => ("steps", steps),
        };
        if length == 0 {
            return Err(Invalid::new(
                format!("length.{unit}"),
                format!("0 {unit} train nothing"),
            ));
        }
        if self.batch == 0 {
            return Err(Invalid::new("batch", "a batch of 0 examples trains nothing"));
        }
        if let Some(largest) = self.clip_gradient.filter(|norm| !(norm.is_finite() && *norm > 0.0)) {
            let message =
                format!("the gradient cannot be clipped to a norm of {largest}; leave it out or write a norm above 0");
            return Err(Invalid::new("clip_gradient", message));
        }
        self.optimizer.check()?;
        self.schedule.check()?;
        self.awp.as_ref().map_or(Ok(()), Awp::check)?;
        self.averaging.as_ref().map_or(Ok(()), Averaging::check)
    }
}

/// One recipe for every defense, so that they can be compared. Colour images: "Bag of Tricks for Adversarial
/// Training", Pang et al. 2021, arXiv:2010.00467 (110 epochs, 0.1 falling tenfold at 100 and 105, weight decay
/// 5e-4, batches of 128). Digits: TRADES's MNIST script, yaodongyu/TRADES 6e8e11b.
pub fn shared_recipe(setting: &Setting) -> Recipe {
    let sgd = |rate, weight_decay| Optimizer::Sgd {
        rate,
        momentum: 0.9,
        nesterov: false,
        weight_decay,
        decay: Decay::All,
    };
    match setting.family {
        Family::Cifar => Recipe {
            length: Length::Epochs(110),
            batch: 128,
            optimizer: sgd(0.1, 5e-4),
            schedule: Schedule::Steps {
                at: vec![100, 105],
                factor: 0.1,
            },
            clip_gradient: None,
            augment: vec![Augmentation::Crop4, Augmentation::Flip],
            awp: None,
            averaging: None,
        },
        Family::Mnist => Recipe {
            length: Length::Epochs(100),
            batch: 128,
            optimizer: sgd(0.01, 0.0),
            schedule: Schedule::Steps {
                at: vec![55, 75, 90],
                factor: 0.1,
            },
            clip_gradient: None,
            augment: vec![],
            awp: None,
            averaging: None,
        },
    }
}

/// One augmentation of a training image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Augmentation {
    /// Pad by 4 zeros on every side and cut a random window of the old size.
    Crop4,
    /// Pad by 4 mirrored pixels on every side and cut a random window of the old size.
    Crop4Reflect,
    /// Flip left to right with probability ½.
    Flip,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_that_train_nothing_are_refused() {
        let good = shared_recipe(&testing::setting(Family::Cifar, attacks::Norm::Linf));
        assert_eq!(good.check(), Ok(()));
        let check = |change: &dyn Fn(&mut Recipe), field: &str| {
            let mut recipe = good.clone();
            change(&mut recipe);
            assert_eq!(recipe.check().unwrap_err().field, field);
        };
        check(&|recipe| recipe.batch = 0, "batch");
        check(&|recipe| recipe.batch = usize::MAX, "batch");
        check(&|recipe| recipe.length = Length::Epochs(u64::MAX), "length.epochs");
        check(&|recipe| recipe.length = Length::Steps(1_000_000_001), "length.steps");
        check(
            &|recipe| {
                recipe.schedule = Schedule::Steps {
                    at: vec![100, u64::MAX],
                    factor: 0.1,
                }
            },
            "schedule.at",
        );
        check(&|recipe| recipe.length = Length::Epochs(0), "length.epochs");
        check(&|recipe| recipe.length = Length::Steps(0), "length.steps");
        check(&|recipe| recipe.clip_gradient = Some(0.0), "clip_gradient");
        for rate in [0.0, -0.1, f64::NAN] {
            check(&|recipe| recipe.optimizer = Optimizer::adam(rate), "optimizer.rate");
        }
        check(
            &|recipe| {
                recipe.schedule = Schedule::Steps {
                    at: vec![100, 100],
                    factor: 0.1,
                }
            },
            "schedule.at",
        );
        check(
            &|recipe| {
                recipe.schedule = Schedule::Steps {
                    at: vec![100],
                    factor: f64::NAN,
                }
            },
            "schedule.factor",
        );
        check(
            &|recipe| {
                recipe.schedule = Schedule::Piecewise {
                    at: vec![1],
                    factors: vec![],
                }
            },
            "schedule.factors",
        );
        let sgd = |momentum, nesterov, weight_decay| {
            move |recipe: &mut Recipe| {
                recipe.optimizer = Optimizer::Sgd {
                    rate: 0.1,
                    momentum,
                    nesterov,
                    weight_decay,
                    decay: Decay::All,
                }
            }
        };
        check(&sgd(1.0, false, 0.0), "optimizer.momentum");
        check(&sgd(0.0, true, 0.0), "optimizer.nesterov");
        check(&sgd(0.9, false, -1.0), "optimizer.weight_decay");
        for gamma in [0.0, -0.1, f64::NAN] {
            check(&|recipe| recipe.awp = Some(Awp { gamma, warmup: 0 }), "awp.gamma");
        }
        for decay in [1.0, -0.1, f64::NAN] {
            check(
                &|recipe| recipe.averaging = Some(Averaging { decay, start: 0 }),
                "averaging.decay",
            );
        }
    }

    /// Keys of cells are hashes of this text.
    #[test]
    fn options_that_are_not_used_do_not_show() {
        let setting = testing::setting(Family::Mnist, attacks::Norm::Linf);
        let text = serde_json::to_string(&shared_recipe(&setting)).unwrap();
        assert_eq!(
            text,
            r#"{"length":{"epochs":100},"batch":128,"optimizer":{"name":"sgd","rate":0.01,"momentum":0.9,"nesterov":false,"weight_decay":0.0,"decay":"all"},"schedule":{"name":"steps","at":[55,75,90],"factor":0.1},"clip_gradient":null,"augment":[]}"#
        );
        let more = text.replace("\"augment\"", r#""awp":{},"averaging":{"start":3},"augment""#);
        let recipe: Recipe = serde_json::from_str(&more).unwrap();
        assert_eq!(
            recipe.awp,
            Some(Awp {
                gamma: 0.005,
                warmup: 0
            })
        );
        assert_eq!(recipe.averaging, Some(Averaging { decay: 0.995, start: 3 }));
        assert!(
            serde_json::from_str::<Recipe>(&text.replace("\"augment\"", r#""awp":{"speed":1},"augment""#)).is_err()
        );
    }

    #[test]
    fn unknown_keys_are_refused() {
        let parse = |text: &str| serde_json::from_str::<Optimizer>(text);
        assert!(parse(r#"{"name": "sgd", "rate": 0.1}"#).is_ok());
        assert!(parse(r#"{"name": "sgd", "rate": 0.1, "speed": 1}"#).is_err());
        assert!(serde_json::from_str::<Schedule>(r#"{"name": "constant", "at": [1]}"#).is_err());
    }
}
