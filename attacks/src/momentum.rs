//! The ascent along a momentum of normalised gradients, which [`crate::MiFgsm`] and its variants share.

use candle_core::{Result, Tensor};
use models::Classifier;

use crate::ball::{Ball, Length, l1_norms};
use crate::diversity::Diversity;
use crate::{Batch, BatchNorm, Description, Invalid, Loss, Perturbed, Pixels, Probe, Setting, Start, Threat};

/// G ← μ·G + g / ‖g‖₁, x′ ← Π(x′ + step · sign G).
#[derive(Debug, Clone)]
pub(crate) struct Momentum {
    pub(crate) steps: u64,
    pub(crate) step_size: Option<Pixels>,
    /// μ
    pub(crate) decay: f64,
    pub(crate) loss: Loss,
    pub(crate) batch_norm: BatchNorm,
}

/// Where the variants differ.
pub(crate) struct Variation<'a> {
    /// The transformation of the images that the network sees in a step (from 1), if any.
    pub(crate) transform: &'a mut dyn FnMut(u64, &Tensor) -> Result<Option<Diversity>>,
    /// Applied to a gradient before it enters the momentum.
    pub(crate) smooth: &'a dyn Fn(&Tensor) -> Result<Tensor>,
    /// Sees the images after each step, counted from 1.
    pub(crate) observe: &'a mut dyn FnMut(u64, &Tensor) -> Result<()>,
}

impl Momentum {
    /// Fills the step size and checks every value.
    pub(crate) fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        crate::positive("steps", self.steps)?;
        if self.step_size.is_none() {
            self.step_size = Some(setting.step_size(self.steps)?);
        }
        crate::check_step_size(self.step_size, setting)?;
        if !(self.decay.is_finite() && self.decay >= 0.0) {
            return Err(Invalid::new(
                "decay",
                format!("decay is {}; it must be at least 0, usually 1", self.decay),
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

    pub(crate) fn describe(&self) -> Description {
        Description {
            steps: Some(self.steps),
            step_size: self.step_size,
            restarts: Some(1),
            loss: Some(self.loss.to_string()),
            start: Some(Start::None.to_string()),
            batch_norm: Some(self.batch_norm.to_string()),
        }
    }

    pub(crate) fn ascend(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        variation: Variation<'_>,
    ) -> Result<Perturbed> {
        let Some(step_size) = self.step_size else {
            candle_core::bail!("step_size is open; resolve the configuration first");
        };
        let mut probe = Probe::new(classifier, self.batch_norm)?;
        let clean_logits = probe.clean_logits(&self.loss, &batch.images)?;
        let ball = Ball::new(threat, &batch.images)?;
        let length = Length::Same(step_size.value());
        let mut images = batch.images.detach();
        let mut direction = images.zeros_like()?;
        for step in 1..=self.steps {
            let transform = (variation.transform)(step, &images)?;
            let transformed = match &transform {
                Some(transform) => transform.apply(&images)?,
                None => images.clone(),
            };
            let slope = probe.slope(&transformed, |logits| {
                self.loss.per_example(logits, &batch.labels, clean_logits.as_ref())
            })?;
            let gradient = match &transform {
                Some(transform) => transform.pull_back(&slope.gradient)?,
                None => slope.gradient,
            };
            let gradient = (variation.smooth)(&gradient)?;
            let scaled = gradient.broadcast_div(&l1_norms(&gradient)?.maximum(1e-6)?)?;
            direction = ((direction * self.decay)? + scaled)?;
            images = ball.ascend(&images, &direction, &length)?;
            (variation.observe)(step, &images)?;
        }
        probe.finish(images)
    }
}
