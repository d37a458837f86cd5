//! Standard adversarial training: Madry et al. 2018, arXiv:1706.06083.
//!
//! loss = mean_B CE(f(x′), y), x′ = argmax over the ball of CE(f(x′), y)
//!
//! Images `[B, C, H, W]` in `[0, 1]`; logits `[B, K]`; result: scalar, nats.
//! The inner attack starts uniformly in the ball.

use attacks::losses::cross_entropy;
use attacks::{Family, Invalid, Loss, Method, Norm, Setting, Start};
use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Augmentation, Decay, Defense, InnerAttack, Length, Optimizer, Recipe, Schedule, Step};

/// Standard adversarial training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Standard {
    /// The inner attack; from a uniform start, on cross entropy.
    #[serde(default)]
    pub attack: InnerAttack,
}

impl Method for Standard {
    const NAME: &'static str = "standard";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "cross entropy on the images of an inner attack";
    const SOURCE: &'static str = "Madry et al. 2018, arXiv:1706.06083";
    const EXAMPLE: &'static str = r#"{"attack": {"steps": 7}}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        self.attack
            .resolve(setting, Start::Uniform, Loss::CrossEntropy)
            .map_err(|invalid| invalid.within("attack"))
    }
}

impl Defense for Standard {
    fn objective(&self, step: &mut Step<'_>) -> Result<Tensor> {
        let adversarial = self.attack.perturb(step)?;
        let robust_logits = step.train_logits(&adversarial)?;
        cross_entropy(&robust_logits, &step.batch.labels)?.mean_all()
    }

    /// CIFAR: `config.json` of MadryLab/cifar10_challenge (f15682d). Digits: of MadryLab/mnist_challenge (3ee3643).
    fn authors_recipe(&self, setting: &Setting) -> Option<Recipe> {
        match (setting.threat.norm, setting.family) {
            (Norm::L2, _) => None,
            (Norm::Linf, Family::Cifar) => Some(Recipe {
                length: Length::Steps(80_000),
                batch: 128,
                optimizer: Optimizer::Sgd {
                    rate: 0.1,
                    momentum: 0.9,
                    nesterov: false,
                    weight_decay: 2e-4,
                    decay: Decay::All,
                },
                schedule: Schedule::Steps {
                    at: vec![40_000, 60_000],
                    factor: 0.1,
                },
                clip_gradient: None,
                augment: vec![Augmentation::Crop4, Augmentation::Flip],
                awp: None,
                averaging: None,
            }),
            (Norm::Linf, Family::Mnist) => Some(Recipe {
                length: Length::Steps(100_000),
                batch: 50,
                optimizer: Optimizer::adam(1e-4),
                schedule: Schedule::Constant {},
                clip_gradient: None,
                augment: vec![],
                awp: None,
                averaging: None,
            }),
        }
    }
}
