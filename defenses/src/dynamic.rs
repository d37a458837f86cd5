//! Dynamic adversarial training: Wang et al. 2019, "On the Convergence and Robustness of Adversarial
//! Training", ICML 2019.
//!
//! loss = mean_B CE(f(x′), y), x′ found by PGD that stops each image once FOSC(x′) ≤ c_t
//! c_t = max(c_max − t · c_max / T′, 0), t the epoch counted from 0
//!
//! So training begins with weak examples and ends with fully converged ones. Images `[B, C, H, W]` in
//! `[0, 1]`; FOSC and the result in nats.
//! The released code (YisenWang/dynamic_adv_training, 470210e) differs from the paper, and two options follow
//! it: `origin: start` measures FOSC from the random start, and `weighted_by_loss: true` weighs each example by
//! its own loss from epoch 1 on. Deviations: its rate also decays by 1/(1 + 10⁻⁴ · step), and its augmentation
//! is Keras's rotation by 10°, shift by a fifth, and flip.

use attacks::losses::cross_entropy;
use attacks::{Family, FoscPgd, Invalid, Loss, Method, Norm, Origin, Setting, Start};
use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Augmentation, Decay, Defense, InnerAttack, Length, Optimizer, Recipe, Schedule, Step};

/// Dynamic adversarial training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dynamic {
    /// The first threshold of FOSC; 0.5.
    #[serde(default = "default_c_max")]
    pub c_max: f64,
    /// T′, the epoch at which the threshold reaches 0; 100, of the authors' 120.
    #[serde(default = "default_until")]
    pub until: u64,
    /// The point from which FOSC measures; `image`, as in the paper.
    #[serde(default)]
    pub origin: Origin,
    /// Whether each example is weighted by its own loss from epoch 1 on; no, as in the paper.
    #[serde(default)]
    pub weighted_by_loss: bool,
    /// The inner attack; from a uniform start, on cross entropy.
    #[serde(default)]
    pub attack: InnerAttack,
}

fn default_c_max() -> f64 {
    0.5
}

fn default_until() -> u64 {
    100
}

impl Default for Dynamic {
    fn default() -> Self {
        Self {
            c_max: default_c_max(),
            until: default_until(),
            origin: Origin::default(),
            weighted_by_loss: false,
            attack: InnerAttack::default(),
        }
    }
}

impl Method for Dynamic {
    const NAME: &'static str = "dynamic";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "adversarial training on examples that converge further as training goes on";
    const SOURCE: &'static str = "Wang et al. 2019, ICML 2019, PMLR 97:6586";
    const EXAMPLE: &'static str = r#"{"c_max": 0.5, "until": 100}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        crate::fields::check_weight("c_max", self.c_max)?;
        attacks::positive("until", self.until)?;
        self.attack
            .resolve(setting, Start::Uniform, Loss::CrossEntropy)
            .map_err(|invalid| invalid.within("attack"))?;
        if self.attack.loss != Some(Loss::CrossEntropy) {
            return Err(Invalid::new("attack.loss", "FOSC is defined for cross-entropy"));
        }
        if self.attack.clip_start == Some(true) {
            return Err(Invalid::new(
                "attack.clip_start",
                "the start of this attack is not clipped",
            ));
        }
        Ok(())
    }
}

impl Dynamic {
    /// c_t.
    pub fn threshold(&self, epoch: u64) -> f64 {
        (self.c_max - epoch as f64 * self.c_max / self.until as f64).max(0.0)
    }
}

impl Defense for Dynamic {
    fn objective(&self, step: &mut Step<'_>) -> Result<Tensor> {
        let attack = FoscPgd {
            steps: crate::fields::resolved("attack.steps", self.attack.steps)?,
            step_size: crate::fields::resolved("attack.step_size", self.attack.step_size)?,
            start: crate::fields::resolved("attack.start", self.attack.start)?,
            origin: self.origin,
            threshold: self.threshold(step.epoch),
            batch_norm: crate::fields::resolved("attack.batch_norm", self.attack.batch_norm)?,
        };
        let threat = self.attack.threat(step.threat);
        let adversarial = step.attack(&attack, &threat)?;
        let robust_logits = step.train_logits(&adversarial)?;
        let mut losses = cross_entropy(&robust_logits, &step.batch.labels)?;
        if self.weighted_by_loss && step.epoch > 0 {
            losses = (&losses * losses.detach())?;
        }
        step.mean(&losses)
    }

    /// The training script of YisenWang/dynamic_adv_training (470210e). Its L2 penalty of 2e-3 · ‖w‖² on the
    /// weights is a weight decay of 4e-3.
    fn authors_recipe(&self, setting: &Setting) -> Option<Recipe> {
        if setting.family != Family::Cifar || setting.threat.norm != Norm::Linf {
            return None;
        }
        Some(Recipe {
            length: Length::Epochs(120),
            batch: 128,
            optimizer: Optimizer::Sgd {
                rate: 0.01,
                momentum: 0.9,
                nesterov: false,
                weight_decay: 4e-3,
                decay: Decay::Weights,
            },
            schedule: Schedule::Steps {
                at: vec![61, 101],
                factor: 0.1,
            },
            clip_gradient: None,
            augment: vec![Augmentation::Crop4, Augmentation::Flip],
            awp: None,
            averaging: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_falls_to_zero() {
        let dynamic = Dynamic::default();
        let thresholds = [0, 50, 100, 119].map(|epoch| dynamic.threshold(epoch));
        assert_eq!(thresholds, [0.5, 0.25, 0.0, 0.0]);
    }
}
