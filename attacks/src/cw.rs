//! CW∞: projected gradient descent on the margin loss of Carlini and Wagner 2017, arXiv:1608.04644.
//!
//! x′ ← Π(x′ + step · sign ∇L(x′)), L = −max(z_y − M + κ, 0), M = max_{k≠y} z_k
//!
//! Images `[B, C, H, W]` in `[0, 1]`; logits z `[B, K]`. What the literature calls CW∞ is this, not the
//! optimisation of the original paper. Public code disagrees about L; `variant` chooses. κ = 0 stops
//! pushing an example as soon as it is wrong, which costs nothing; κ = 50 never stops. FAT takes 30 steps and
//! κ = 50. MART's κ was never published, and its co-authors' later code has the batch sum.

use candle_core::Result;
use models::Classifier;
use random::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Attack, Batch, BatchNorm, Description, Invalid, Loss, Method, Perturbed, Pgd, Pixels, Setting, Start, Threat,
};

/// PGD on the margin loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cw {
    /// Gradient steps; 30.
    #[serde(default = "default_steps")]
    pub steps: u64,
    /// The length of a step.
    #[serde(default)]
    pub step_size: Option<Pixels>,
    /// κ, in logits: by how much an example should be wrong; 50.
    #[serde(default = "default_kappa")]
    pub kappa: f64,
    /// Which code's loss.
    #[serde(default)]
    pub variant: Variant,
    /// Where it starts.
    #[serde(default)]
    pub start: Start,
    /// Whether the start is brought into the ball and `[0, 1]` before the first gradient.
    #[serde(default)]
    pub clip_start: bool,
    /// Independent tries, of which the worst for the network counts.
    #[serde(default = "default_restarts")]
    pub restarts: u64,
    /// The batch-norm mode in which the network is attacked.
    #[serde(default)]
    pub batch_norm: BatchNorm,
}

/// The public versions of the margin loss that differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// [`Loss::Cw`]: Madry's and FAT's.
    #[default]
    PerSample,
    /// [`Loss::CwZeroMask`]: Dynamic AT's.
    ZeroMask,
    /// [`Loss::CwBatchSum`]: RobustWRN's. Depends on the batch and stops early: weaker. Takes no κ.
    BatchSum,
}

fn default_steps() -> u64 {
    30
}

fn default_kappa() -> f64 {
    50.0
}

fn default_restarts() -> u64 {
    1
}

impl Default for Cw {
    fn default() -> Self {
        Self {
            steps: default_steps(),
            step_size: None,
            kappa: default_kappa(),
            variant: Variant::default(),
            start: Start::default(),
            clip_start: false,
            restarts: default_restarts(),
            batch_norm: BatchNorm::default(),
        }
    }
}

impl Cw {
    fn as_pgd(&self) -> Pgd {
        Pgd {
            steps: Some(self.steps),
            step_size: self.step_size,
            start: self.start,
            clip_start: self.clip_start,
            loss: match self.variant {
                Variant::PerSample => Loss::Cw { kappa: self.kappa },
                Variant::ZeroMask => Loss::CwZeroMask { kappa: self.kappa },
                Variant::BatchSum => Loss::CwBatchSum,
            },
            restarts: self.restarts,
            batch_norm: self.batch_norm,
        }
    }
}

impl Method for Cw {
    const NAME: &'static str = "cw";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "projected gradient descent on the margin loss with confidence kappa";
    const SOURCE: &'static str = "Carlini and Wagner 2017, arXiv:1608.04644, as in FAT, arXiv:2002.11242";
    const EXAMPLE: &'static str = r#"{"steps": 30, "kappa": 50.0}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        crate::loss::check_kappa(self.kappa)?;
        let mut pgd = self.as_pgd();
        pgd.resolve(setting)?;
        self.step_size = pgd.step_size;
        Ok(())
    }
}

impl Attack for Cw {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        self.as_pgd().perturb(classifier, batch, threat, random)
    }

    fn describe(&self) -> Description {
        self.as_pgd().describe()
    }
}
