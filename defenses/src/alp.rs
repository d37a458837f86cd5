//! Adversarial logit pairing: Kannan et al. 2018, arXiv:1803.06373.
//!
//! `probabilities` (Table 1 of the MART paper): mean_B [ CE(f(x′), y) + λ · ‖p(x′) − p(x)‖₂² ]
//! `logits` (Kannan et al.): mean_B [ ½ (CE(f(x), y) + CE(f(x′), y)) + λ · mean_K (z(x) − z(x′))² ]
//!
//! Images `[B, C, H, W]` in `[0, 1]`; logits z `[B, K]`; result: scalar, nats. x′ = argmax over the ball of
//! CE(f(x′), y). Training passes: x, then x′.
//! Kannan et al. train on ImageNet with RMSProp and label smoothing; their λ is 0.5 in the example of the
//! released code. The MART paper reports no ALP result and no λ. The inner attack and its start are MART's.

use attacks::losses::{cross_entropy, log_softmax, squared_distance};
use attacks::{Invalid, Loss, Method, Setting};
use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inner::small_gaussian;
use crate::{Defense, InnerAttack, Step};

/// Adversarial logit pairing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alp {
    /// λ, the weight of the pairing; 1 for probabilities, 0.5 for logits.
    #[serde(default)]
    pub lambda: Option<f64>,
    /// What is paired.
    #[serde(default)]
    pub form: AlpForm,
    /// The inner attack; from normal noise of 0.001, on cross entropy.
    #[serde(default)]
    pub attack: InnerAttack,
}

/// What adversarial logit pairing pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AlpForm {
    /// Probabilities, summed over classes: Table 1 of the MART paper.
    #[default]
    Probabilities,
    /// Logits, averaged over classes, and half of the cross entropy on clean images: Kannan et al.
    Logits,
}

impl Method for Alp {
    const NAME: &'static str = "alp";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "adversarial logit pairing: cross entropy plus distance between predictions";
    const SOURCE: &'static str = "Kannan et al. 2018, arXiv:1803.06373";
    const EXAMPLE: &'static str = r#"{"lambda": 1.0}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        let usual = match self.form {
            AlpForm::Probabilities => 1.0,
            AlpForm::Logits => 0.5,
        };
        crate::fields::check_weight("lambda", *self.lambda.get_or_insert(usual))?;
        self.attack
            .resolve(setting, small_gaussian(), Loss::CrossEntropy)
            .map_err(|invalid| invalid.within("attack"))
    }
}

impl Alp {
    /// One value per example `[B]`.
    pub fn loss(&self, clean: &Tensor, robust: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let lambda = crate::fields::resolved("lambda", self.lambda)?;
        let robust_loss = cross_entropy(robust, labels)?;
        match self.form {
            AlpForm::Probabilities => robust_loss + (probability_distance(clean, robust)? * lambda)?,
            AlpForm::Logits => {
                let mixed = ((cross_entropy(clean, labels)? + robust_loss)? * 0.5)?;
                mixed + (logit_distance(clean, robust)? * lambda)?
            }
        }
    }
}

impl Defense for Alp {
    fn objective(&self, step: &mut Step<'_>) -> Result<Tensor> {
        let adversarial = self.attack.perturb(step)?;
        let clean_logits = step.train_logits(&step.batch.images)?;
        let robust_logits = step.train_logits(&adversarial)?;
        let losses = self.loss(&clean_logits, &robust_logits, &step.batch.labels)?;
        step.mean(&losses)
    }
}

/// ‖p − q‖₂² from the logits of both, `[B]`.
pub(crate) fn probability_distance(clean: &Tensor, robust: &Tensor) -> Result<Tensor> {
    squared_distance(&log_softmax(clean)?.exp()?, &log_softmax(robust)?.exp()?)
}

/// mean_K (z − z′)², `[B]`.
pub(crate) fn logit_distance(clean: &Tensor, robust: &Tensor) -> Result<Tensor> {
    squared_distance(clean, robust)? / clean.dim(1)? as f64
}
