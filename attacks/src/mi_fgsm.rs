//! MI-FGSM, the momentum iterative method: Dong et al. 2018, arXiv:1710.06081.
//!
//! G ← μ·G + g / ‖g‖₁, x′ ← Π(x′ + step · sign G); L2: x′ ← Π(x′ + step · G / ‖G‖₂)
//!
//! Images `[B, C, H, W]` in `[0, 1]`, g the gradient of the loss at x′, Π the projection onto the ball
//! around x cut to `[0, 1]`. It starts at the image. Deviation: as in advertorch, ‖g‖₁ is at least 1e-6.

use candle_core::{Result, Tensor};
use models::Classifier;
use random::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::momentum::{Momentum, Variation};
use crate::{Attack, Batch, BatchNorm, Description, Invalid, Loss, Method, Perturbed, Pixels, Setting, Threat};

/// The momentum iterative method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MiFgsm {
    /// Gradient steps; 10.
    #[serde(default = "default_steps")]
    pub steps: u64,
    /// The length of a step.
    #[serde(default)]
    pub step_size: Option<Pixels>,
    /// μ, how much of the gathered direction is kept; 1.
    #[serde(default = "default_decay")]
    pub decay: f64,
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

impl Default for MiFgsm {
    fn default() -> Self {
        Self {
            steps: default_steps(),
            step_size: None,
            decay: default_decay(),
            loss: Loss::default(),
            batch_norm: BatchNorm::default(),
        }
    }
}

impl MiFgsm {
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

impl Method for MiFgsm {
    const NAME: &'static str = "mi-fgsm";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "iterated sign steps along a momentum of normalised gradients";
    const SOURCE: &'static str = "Dong et al. 2018, arXiv:1710.06081";
    const EXAMPLE: &'static str = r#"{"steps": 10, "decay": 1.0}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        let mut momentum = self.as_momentum();
        momentum.resolve(setting)?;
        self.step_size = momentum.step_size;
        Ok(())
    }
}

impl Attack for MiFgsm {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        self.trace(classifier, batch, threat, random, &mut |_, _| Ok(()))
    }

    fn describe(&self) -> Description {
        self.as_momentum().describe()
    }
}

impl MiFgsm {
    /// As [`Attack::perturb`], showing the images after each step, counted from 1, to `observe`.
    pub fn trace(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        _: &Stream,
        observe: &mut dyn FnMut(u64, &Tensor) -> Result<()>,
    ) -> Result<Perturbed> {
        let variation = Variation {
            transform: &mut |_, _| Ok(None),
            smooth: &|gradient| Ok(gradient.clone()),
            observe,
        };
        self.as_momentum().ascend(classifier, batch, threat, variation)
    }
}
