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
        let losses = self.losses(&clean_logits, &robust_logits, &step.batch.labels)?;
        step.mean(&losses)
    }
}

impl Mixed {
    /// The loss of each example `[B]`, apart from networks and attacks, so that it can be compared with PyTorch.
    fn losses(&self, clean: &Tensor, robust: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let clean = cross_entropy(clean, labels)?;
        let robust = cross_entropy(robust, labels)?;
        (clean * self.alpha)? + (robust * (1.0 - self.alpha))?
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::{DType, Var};
    use reference::Case;

    use super::*;

    fn largest_difference(ours: &Tensor, theirs: &Tensor) -> f64 {
        let difference = (ours - theirs).unwrap().abs().unwrap();
        difference.max_all().unwrap().to_scalar().unwrap()
    }

    /// `reference/mixed.py` writes the numbers.
    #[test]
    fn loss_and_gradients_are_those_of_pytorch() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/reference/mixed.safetensors");
        let case = Case::read(Path::new(file));
        let mixed = Mixed {
            alpha: case.hyper("alpha"),
            attack: InnerAttack::default(),
        };
        let logits = |name: &str| Var::from_tensor(&case.input(name, DType::F64)).unwrap();
        let (clean, robust) = (logits("clean_logits"), logits("robust_logits"));
        let losses = mixed.losses(&clean, &robust, &case.indices("labels")).unwrap();
        assert!(largest_difference(&losses, &case.result("loss")) < 1e-9);
        let gradients = losses.mean_all().unwrap().backward().unwrap();
        for (name, logits) in [("grad_clean", &clean), ("grad_robust", &robust)] {
            let ours = gradients.get(logits).unwrap();
            assert!(largest_difference(ours, &case.result(name)) < 1e-9, "{name}");
        }
    }
}
