//! Clean logit pairing: Kannan et al. 2018, arXiv:1803.06373, and what the MART paper calls so.
//!
//! `probabilities` (Table 1 of the MART paper): mean_B [ CE(f(x), y) + λ · ‖p(x′) − p(x)‖₂² ]
//! `logits`: mean_B [ CE(f(x), y) + λ · mean_K (z(x) − z(x′))² ]
//! `pair` (Kannan et al.): mean_B CE(f(x), y) + λ · mean_{i<B/2, K} (z(x_i) − z(x_{i+B/2}))²
//!
//! Images `[B, C, H, W]` in `[0, 1]`; logits z `[B, K]`; result: scalar, nats. x′ = argmax over the ball of
//! CE(f(x′), y). Training passes: x, then x′; `pair` has no adversary and pairs two halves of the clean
//! batch (an odd last example is not paired). The MART paper reports no CLP result and no λ.
//! Deviation: in Kannan et al. `pair` also adds Gaussian noise to the images, as an augmentation.

use attacks::losses::cross_entropy;
use attacks::{Invalid, Loss, Method, Setting};
use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::alp::{logit_distance, probability_distance};
use crate::inner::small_gaussian;
use crate::{Defense, InnerAttack, Step};

/// Clean logit pairing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clp {
    /// λ, the weight of the pairing; 1 for probabilities, else 0.5.
    #[serde(default)]
    pub lambda: Option<f64>,
    /// What is paired.
    #[serde(default)]
    pub form: ClpForm,
    /// The inner attack; from normal noise of 0.001, on cross entropy. `pair` has none.
    #[serde(default)]
    pub attack: InnerAttack,
}

/// What clean logit pairing pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClpForm {
    /// Probabilities of x and x′, summed over classes: Table 1 of the MART paper.
    #[default]
    Probabilities,
    /// Logits of x and x′, averaged over classes.
    Logits,
    /// Logits of two clean examples, averaged over classes: Kannan et al.
    Pair,
}

impl Method for Clp {
    const NAME: &'static str = "clp";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "clean logit pairing: clean cross entropy plus distance between predictions";
    const SOURCE: &'static str = "Kannan et al. 2018, arXiv:1803.06373";
    const EXAMPLE: &'static str = r#"{"lambda": 1.0}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        let usual = match self.form {
            ClpForm::Probabilities => 1.0,
            ClpForm::Logits | ClpForm::Pair => 0.5,
        };
        crate::fields::check_weight("lambda", *self.lambda.get_or_insert(usual))?;
        if self.form == ClpForm::Pair && self.attack != InnerAttack::default() {
            return Err(Invalid::new(
                "attack",
                "the form `pair` has no adversary; leave `attack` out",
            ));
        }
        if self.form == ClpForm::Pair {
            return Ok(());
        }
        self.attack
            .resolve(setting, small_gaussian(), Loss::CrossEntropy)
            .map_err(|invalid| invalid.within("attack"))
    }
}

impl Clp {
    /// One value per example `[B]`, of the forms that have an adversary.
    pub fn loss(&self, clean: &Tensor, robust: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let distance = match self.form {
            ClpForm::Probabilities => probability_distance(clean, robust),
            ClpForm::Logits => logit_distance(clean, robust),
            ClpForm::Pair => candle_core::bail!("the form `pair` has no adversary"),
        };
        cross_entropy(clean, labels)? + (distance? * crate::fields::resolved("lambda", self.lambda)?)?
    }

    /// The scalar of the form `pair`, from the mean of the cross entropy.
    pub fn pair_loss(&self, clean: &Tensor, natural: Tensor) -> Result<Tensor> {
        let half = clean.dim(0)? / 2;
        if half == 0 {
            return Ok(natural);
        }
        let distance = logit_distance(&clean.narrow(0, 0, half)?, &clean.narrow(0, half, half)?)?;
        natural + (distance.mean_all()? * crate::fields::resolved("lambda", self.lambda)?)?
    }
}

impl Defense for Clp {
    fn objective(&self, step: &mut Step<'_>) -> Result<Tensor> {
        if self.form == ClpForm::Pair {
            let clean_logits = step.train_logits(&step.batch.images)?;
            let natural = step.mean(&cross_entropy(&clean_logits, &step.batch.labels)?)?;
            return self.pair_loss(&clean_logits, natural);
        }
        let adversarial = self.attack.perturb(step)?;
        let clean_logits = step.train_logits(&step.batch.images)?;
        let robust_logits = step.train_logits(&adversarial)?;
        let losses = self.loss(&clean_logits, &robust_logits, &step.batch.labels)?;
        step.mean(&losses)
    }
}
