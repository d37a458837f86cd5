//! The fast gradient sign method: Goodfellow et al. 2015, arXiv:1412.6572.
//!
//! x′ = Π(s + ε · sign ∇L(s)), with s = x or a random start in the ball
//!
//! Images `[B, C, H, W]` in `[0, 1]`, Π the projection onto the ball around x cut to `[0, 1]`. Under L2
//! the step is ε · ∇L / ‖∇L‖₂. The literature's FGSM columns come in both kinds: from the image (TRADES's
//! README) and from a uniform start (FAT, Dynamic AT), which is some 5 points weaker on CIFAR-10.

use candle_core::Result;
use models::Classifier;
use random::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Attack, Batch, BatchNorm, Description, Invalid, Loss, Method, Perturbed, Pgd, Pixels, Setting, Start, Threat,
};

/// The fast gradient sign method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fgsm {
    /// Where the one gradient is taken.
    #[serde(default = "default_start")]
    pub start: Start,
    /// Whether the start is brought into the ball and `[0, 1]` before the gradient.
    #[serde(default)]
    pub clip_start: bool,
    /// The loss ascended.
    #[serde(default)]
    pub loss: Loss,
    /// The batch-norm mode in which the network is attacked.
    #[serde(default)]
    pub batch_norm: BatchNorm,
}

fn default_start() -> Start {
    Start::None
}

impl Default for Fgsm {
    fn default() -> Self {
        Self {
            start: default_start(),
            clip_start: false,
            loss: Loss::default(),
            batch_norm: BatchNorm::default(),
        }
    }
}

impl Fgsm {
    /// It is PGD of one step as long as the radius.
    fn as_pgd(&self, radius: Option<Pixels>) -> Pgd {
        Pgd {
            steps: Some(1),
            step_size: radius,
            start: self.start,
            clip_start: self.clip_start,
            loss: self.loss,
            restarts: 1,
            batch_norm: self.batch_norm,
        }
    }
}

impl Method for Fgsm {
    const NAME: &'static str = "fgsm";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "one step of length epsilon along the gradient's sign";
    const SOURCE: &'static str = "Goodfellow et al. 2015, arXiv:1412.6572";
    const EXAMPLE: &'static str = r#"{"start": "uniform"}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        self.as_pgd(Some(setting.threat.epsilon)).resolve(setting)
    }
}

impl Attack for Fgsm {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        self.as_pgd(Some(threat.epsilon))
            .perturb(classifier, batch, threat, random)
    }

    fn describe(&self) -> Description {
        self.as_pgd(None).describe()
    }
}
