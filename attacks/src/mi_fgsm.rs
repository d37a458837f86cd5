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

use crate::ball::{Ball, Length, l1_norms};
use crate::di_fgsm::Diversity;
use crate::{
    Attack, Batch, BatchNorm, Description, Invalid, Loss, Method, Perturbed, Pixels, Probe, Setting, Start, Threat,
};

/// The momentum iterative method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MiFgsm {
    /// Gradient steps; 10.
    #[serde(default = "ten")]
    pub steps: u64,
    /// The length of a step.
    #[serde(default)]
    pub step_size: Option<Pixels>,
    /// μ, how much of the gathered direction is kept; 1.
    #[serde(default = "whole")]
    pub decay: f64,
    /// The loss ascended.
    #[serde(default)]
    pub loss: Loss,
    /// The batch-norm mode in which the network is attacked.
    #[serde(default)]
    pub batch_norm: BatchNorm,
}

pub(crate) fn ten() -> u64 {
    10
}

pub(crate) fn whole() -> f64 {
    1.0
}

impl Default for MiFgsm {
    fn default() -> Self {
        Self {
            steps: ten(),
            step_size: None,
            decay: whole(),
            loss: Loss::default(),
            batch_norm: BatchNorm::default(),
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
        crate::positive("steps", self.steps)?;
        if self.step_size.is_none() {
            self.step_size = Some(setting.step_size(self.steps)?);
        }
        crate::check_step_size(self.step_size, setting)?;
        if !(self.decay.is_finite() && self.decay >= 0.0) {
            return Err(Invalid::new(
                "decay",
                format!("decay is {}; it must be 0 or more, usually 1", self.decay),
            ));
        }
        if self.loss == Loss::Kl {
            return Err(Invalid::new(
                "loss",
                "at the image itself the kl loss has gradient 0; use pgd with a random start",
            ));
        }
        self.loss.check(setting.classes)
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
        Description {
            steps: Some(self.steps),
            step_size: self.step_size,
            restarts: Some(1),
            loss: Some(self.loss.to_string()),
            start: Some(Start::None.to_string()),
            batch_norm: Some(self.batch_norm.to_string()),
        }
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
        let momentum = Momentum {
            attack: self,
            seen: &mut |_, _| Ok(None),
            smooth: &|gradient| Ok(gradient.clone()),
            observe,
        };
        momentum.climb(classifier, batch, threat)
    }
}

/// MI-FGSM with the places open at which its variants differ.
pub(crate) struct Momentum<'a> {
    pub(crate) attack: &'a MiFgsm,
    /// The change that the network sees in a step (from 1) on images, if any.
    pub(crate) seen: &'a mut dyn FnMut(u64, &Tensor) -> Result<Option<Diversity>>,
    /// What is done to a gradient before it is gathered.
    pub(crate) smooth: &'a dyn Fn(&Tensor) -> Result<Tensor>,
    /// Sees the images after each step, counted from 1.
    pub(crate) observe: &'a mut dyn FnMut(u64, &Tensor) -> Result<()>,
}

impl Momentum<'_> {
    pub(crate) fn climb(self, classifier: &dyn Classifier, batch: &Batch, threat: &Threat) -> Result<Perturbed> {
        let attack = self.attack;
        let Some(step_size) = attack.step_size else {
            candle_core::bail!("mi-fgsm: step_size is open; resolve the configuration first");
        };
        let mut probe = Probe::new(classifier, attack.batch_norm)?;
        let clean_logits = probe.clean_logits(&attack.loss, &batch.images)?;
        let ball = Ball::new(threat, &batch.images)?;
        let length = Length::Same(step_size.value());
        let mut images = batch.images.detach();
        let mut direction = images.zeros_like()?;
        for step in 1..=attack.steps {
            let change = (self.seen)(step, &images)?;
            let shown = match &change {
                Some(change) => change.apply(&images)?,
                None => images.clone(),
            };
            let slope = probe.slope(&shown, |logits| {
                attack.loss.per_example(logits, &batch.labels, clean_logits.as_ref())
            })?;
            let gradient = match &change {
                Some(change) => change.pull_back(&slope.gradient)?,
                None => slope.gradient,
            };
            let gradient = (self.smooth)(&gradient)?;
            let scaled = gradient.broadcast_div(&l1_norms(&gradient)?.maximum(1e-6)?)?;
            direction = ((direction * attack.decay)? + scaled)?;
            images = ball.ascend(&images, &direction, &length)?;
            (self.observe)(step, &images)?;
        }
        probe.finish(images)
    }
}
