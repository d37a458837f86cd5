//! TRADES: Zhang et al. 2019, arXiv:1901.08573.
//!
//! loss = mean_B [ CE(f(x), y) + β · KL(p(x) ‖ p(x′)) ], x′ = argmax over the ball of KL(p(x) ‖ p(x′))
//!
//! Images `[B, C, H, W]` in `[0, 1]`; logits `[B, K]`; result: scalar, nats. Gradients reach both sides
//! of the KL term, and x′ is constant.
//!
//! Under L2, x′ comes from [`TradesL2`], with steps of 2ε/steps.
//!
//! As in the released code (yaodongyu/TRADES, 6e8e11b) the clean images pass through the network twice
//! in training mode, before and after x′: the first pass feeds CE, the second the KL term.
//! Deviations: the code trains at ε = 0.031 with steps of 0.007, we at the threat model's radius with
//! steps of ε/4; its KL has a NaN gradient where a probability underflows, ours is finite.

use attacks::losses::{cross_entropy, kl};
use attacks::{Family, Invalid, Loss, Method, Norm, Setting, TradesL2};
use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inner::small_gaussian;
use crate::{Augmentation, Decay, Defense, InnerAttack, Length, Optimizer, Recipe, Schedule, Step};

/// TRADES.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trades {
    /// β, the weight of the KL term; 6 on colour images, 1 on digits.
    #[serde(default)]
    pub beta: Option<f64>,
    /// The inner attack; from normal noise of 0.001, on KL to the clean prediction.
    #[serde(default)]
    pub attack: InnerAttack,
}

impl Method for Trades {
    const NAME: &'static str = "trades";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "cross entropy on clean images plus KL between clean and perturbed predictions";
    const SOURCE: &'static str = "Zhang et al. 2019, arXiv:1901.08573";
    const EXAMPLE: &'static str = r#"{"beta": 6.0}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        let usual = match setting.family {
            Family::Cifar => 6.0,
            Family::Mnist => 1.0,
        };
        crate::fields::check_weight("beta", *self.beta.get_or_insert(usual))?;
        let within = |invalid: Invalid| invalid.within("attack");
        if setting.threat.norm == Norm::L2 && self.attack.step_size.is_none() {
            let steps = *self.attack.steps.get_or_insert(setting.training_steps());
            attacks::positive("steps", steps).map_err(within)?;
            let epsilon = self.attack.epsilon.unwrap_or(setting.threat.epsilon);
            self.attack.step_size = epsilon.checked_times(2, steps);
        }
        self.attack.resolve(setting, small_gaussian(), Loss::Kl).map_err(within)
    }
}

impl Trades {
    /// One value per example `[B]`. `again_logits` are those of the second clean pass.
    pub fn loss(&self, clean: &Tensor, robust: &Tensor, again: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let beta = crate::fields::resolved("beta", self.beta)?;
        cross_entropy(clean, labels)? + (kl(again, robust)? * beta)?
    }
}

impl Trades {
    /// x′: projected gradient descent, or under L2 the attack of TRADES's own.
    fn perturb(&self, step: &mut Step<'_>) -> Result<Tensor> {
        if step.threat.norm != Norm::L2 || self.attack.loss != Some(Loss::Kl) {
            return self.attack.perturb(step);
        }
        let attack = TradesL2 {
            steps: crate::fields::resolved("attack.steps", self.attack.steps)?,
            step_size: self.attack.step_size,
            start: crate::fields::resolved("attack.start", self.attack.start)?,
            batch_norm: crate::fields::resolved("attack.batch_norm", self.attack.batch_norm)?,
        };
        let threat = self.attack.threat(step.threat);
        step.attack(&attack, &threat)
    }
}

impl Defense for Trades {
    fn objective(&self, step: &mut Step<'_>) -> Result<Tensor> {
        let adversarial = self.perturb(step)?;
        let clean_logits = step.train_logits(&step.batch.images)?;
        let robust_logits = step.train_logits(&adversarial)?;
        let clean_logits_again = step.train_logits(&step.batch.images)?;
        let labels = &step.batch.labels;
        let losses = self.loss(&clean_logits, &robust_logits, &clean_logits_again, labels)?;
        step.mean(&losses)
    }

    /// `train_trades_cifar10.py` and `train_trades_mnist.py` of yaodongyu/TRADES (6e8e11b). CIFAR stops one
    /// epoch after the rate has fallen.
    fn authors_recipe(&self, setting: &Setting) -> Option<Recipe> {
        let sgd = |rate, weight_decay| Optimizer::Sgd {
            rate,
            momentum: 0.9,
            nesterov: false,
            weight_decay,
            decay: Decay::All,
        };
        match (setting.threat.norm, setting.family) {
            (Norm::L2, _) => None,
            (Norm::Linf, Family::Cifar) => Some(Recipe {
                length: Length::Epochs(76),
                batch: 128,
                optimizer: sgd(0.1, 2e-4),
                schedule: Schedule::Steps {
                    at: vec![75, 90, 100],
                    factor: 0.1,
                },
                clip_gradient: None,
                augment: vec![Augmentation::Crop4, Augmentation::Flip],
                awp: None,
                averaging: None,
            }),
            (Norm::Linf, Family::Mnist) => Some(Recipe {
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
            }),
        }
    }
}
