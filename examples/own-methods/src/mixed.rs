//! Clean and adversarial examples mixed: Goodfellow et al. 2015, arXiv:1412.6572, section 6.
//!
//! loss = mean_B [ α · CE(f(x), y) + (1 − α) · CE(f(x′), y) ], x′ = argmax over the ball of CE(f(x′), y)
//!
//! Images `[B, C, H, W]` in `[0, 1]`; logits `[B, K]`; result: scalar, nats. The paper has α = ½.

use attacks::losses::cross_entropy;
use attacks::{Invalid, Loss, Method, Setting, Start};
use candle_core::{Result, Tensor};
use defenses::{Defense, InnerAttack, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The defense and its fields in a matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mixed {
    /// α, the weight of the clean images.
    #[serde(default = "default_alpha")]
    pub(crate) alpha: f64,
    /// The inner attack; from a uniform start, on cross entropy.
    #[serde(default)]
    pub(crate) attack: InnerAttack,
}

fn default_alpha() -> f64 {
    0.5
}

impl Method for Mixed {
    const NAME: &'static str = "mixed";
    // Raise it whenever the same configuration gives other numbers: cells are then recomputed.
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "cross entropy on clean and perturbed images, mixed";
    const SOURCE: &'static str = "Goodfellow et al. 2015, arXiv:1412.6572";
    const EXAMPLE: &'static str = r#"{"alpha": 0.5}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        if !(0.0..=1.0).contains(&self.alpha) {
            let message = format!("alpha is {}; it must lie in [0, 1]", self.alpha);
            return Err(Invalid::new("alpha", message));
        }
        self.attack
            .resolve(setting, Start::Uniform, Loss::CrossEntropy)
            .map_err(|invalid| invalid.within("attack"))
    }
}

impl Defense for Mixed {
    fn objective(&self, step: &mut Step<'_>) -> Result<Tensor> {
        let adversarial = self.attack.perturb(step)?;
        // The order is part of the definition: batch norm's running statistics depend on it.
        let clean_logits = step.train_logits(&step.batch.images)?;
        let robust_logits = step.train_logits(&adversarial)?;
        let clean = cross_entropy(&clean_logits, &step.batch.labels)?;
        let robust = cross_entropy(&robust_logits, &step.batch.labels)?;
        step.mean(&((clean * self.alpha)? + (robust * (1.0 - self.alpha))?)?)
    }
}
