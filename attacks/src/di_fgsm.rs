//! DI-FGSM, MI-FGSM with input diversity, for attacks that transfer: Xie et al. 2019, arXiv:1803.06978.
//!
//! g = ∇L(T(x′)) T: with probability p the image is shrunk to r × r pixels, r uniform in `[rate·H, H)`, and laid at a
//! random place on black; then as [`crate::MiFgsm`]: G ← μ·G + g / ‖g‖₁, x′ ← Π(x′ + step · sign G)
//!
//! Images `[B, C, H, W]` in `[0, 1]`, shrunk by taking the nearest pixel. Every example draws its own T in every step.
//! Deviation: the paper enlarges images of 299 pixels to at most 330, and the network takes the larger ones; ours
//! take one size, so images are shrunk instead, by default to no less than 0.9, as ports to small images do.

use candle_core::Result;
use models::Classifier;
use random::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diversity::{self, Diversity};
use crate::momentum::{Momentum, Variation};
use crate::{Attack, Batch, BatchNorm, Description, Invalid, Loss, Method, Perturbed, Pixels, Setting, Threat};

/// MI-FGSM with input diversity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiFgsm {
    /// Gradient steps; 10.
    #[serde(default = "default_steps")]
    pub steps: u64,
    /// The length of a step.
    #[serde(default)]
    pub step_size: Option<Pixels>,
    /// μ, how much of the gathered direction is kept; 1.
    #[serde(default = "default_decay")]
    pub decay: f64,
    /// p, how often an image is changed before the network sees it; 0.5.
    #[serde(default = "default_probability")]
    pub probability: f64,
    /// The smallest height that an image is shrunk to, as a share; 0.9.
    #[serde(default = "default_rate")]
    pub rate: f64,
    /// The loss ascended.
    #[serde(default)]
    pub loss: Loss,
    /// The batch-norm mode in which the network is attacked.
    #[serde(default)]
    pub batch_norm: BatchNorm,
}

fn default_steps() -> u64 {
    10
}

fn default_decay() -> f64 {
    1.0
}

fn default_probability() -> f64 {
    0.5
}

fn default_rate() -> f64 {
    0.9
}

impl Default for DiFgsm {
    fn default() -> Self {
        Self {
            steps: default_steps(),
            step_size: None,
            decay: default_decay(),
            probability: default_probability(),
            rate: default_rate(),
            loss: Loss::default(),
            batch_norm: BatchNorm::default(),
        }
    }
}

impl DiFgsm {
    fn as_momentum(&self) -> Momentum {
        Momentum {
            steps: self.steps,
            step_size: self.step_size,
            decay: self.decay,
            loss: self.loss,
            batch_norm: self.batch_norm,
        }
    }
}

impl Method for DiFgsm {
    const NAME: &'static str = "di-fgsm";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "mi-fgsm on randomly shrunk and shifted images, for transfer";
    const SOURCE: &'static str = "Xie et al. 2019, arXiv:1803.06978";
    const EXAMPLE: &'static str = r#"{"steps": 10, "probability": 0.5}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        let mut momentum = self.as_momentum();
        momentum.resolve(setting)?;
        self.step_size = momentum.step_size;
        diversity::check(self.probability, self.rate)
    }
}

impl Attack for DiFgsm {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        let moves = random.of(Purpose::AttackMove);
        let variation = Variation {
            transform: &mut |step, images| {
                Diversity::draw(self.probability, self.rate, images, &batch.ids, &moves.at(step)).map(Some)
            },
            smooth: &|gradient| Ok(gradient.clone()),
            observe: &mut |_, _| Ok(()),
        };
        self.as_momentum().ascend(classifier, batch, threat, variation)
    }

    fn describe(&self) -> Description {
        self.as_momentum().describe()
    }
}
