//! PGD that stops at a given degree of convergence: Wang et al. 2019, "On the Convergence and Robustness
//! of Adversarial Training", ICML 2019.
//!
//! FOSC(xᵏ) = ε · ‖g‖* − ⟨xᵏ − x⁰, g⟩ ≥ 0, g = ∇CE(xᵏ); ‖·‖* is ‖·‖₁ under L∞, ‖·‖₂ under L2
//!
//! 0 means converged. After the first step only images with FOSC above a threshold go on; so a high
//! threshold makes weak, quick examples. Images `[B, C, H, W]` in `[0, 1]`; FOSC in nats.
//! In the paper x⁰ is the clean image; the released code (YisenWang/dynamic_adv_training, 470210e) takes the
//! random start, and [`Origin::Start`] follows it. Deviation: its CE is −log(p_y + 1e-20).

use candle_core::{Result, Tensor};
use models::Classifier;
use random::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ball::{Ball, Length, l1_norms, l2_norms, per_image};
use crate::losses::cross_entropy;
use crate::{Attack, Batch, BatchNorm, Description, Loss, Norm, Perturbed, Pixels, Probe, Start, Threat};

/// PGD that stops at a given degree of convergence.
#[derive(Debug, Clone, PartialEq)]
pub struct FoscPgd {
    /// Gradient steps at most.
    pub steps: u64,
    /// The length of a step.
    pub step_size: Pixels,
    /// Where it starts.
    pub start: Start,
    /// What x⁰ is.
    pub origin: Origin,
    /// An image stops where FOSC is at most this.
    pub threshold: f64,
    /// The batch-norm mode in which the network is attacked.
    pub batch_norm: BatchNorm,
}

/// Sees FOSC `[B]` and which images still move (1 or 0, `[B]`, u8).
type Observe<'a> = &'a mut dyn FnMut(&Tensor, &Tensor) -> Result<()>;

/// The point from which FOSC measures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The clean image: the paper.
    #[default]
    Image,
    /// The random start: the released code.
    Start,
}

/// FOSC of each image, `[B]`.
pub fn fosc(norm: Norm, epsilon: f64, origin: &Tensor, images: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let dual = match norm {
        Norm::Linf => l1_norms(gradient)?,
        Norm::L2 => l2_norms(gradient)?,
    };
    let gained = ((images - origin)? * gradient)?.flatten_from(1)?.sum(1)?;
    (dual.flatten_all()? * epsilon)? - gained
}

impl Attack for FoscPgd {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        self.trace(classifier, batch, threat, random, None)
    }

    fn describe(&self) -> Description {
        Description {
            steps: Some(self.steps),
            step_size: Some(self.step_size),
            restarts: Some(1),
            loss: Some(Loss::CrossEntropy.to_string()),
            start: Some(self.start.to_string()),
            batch_norm: Some(self.batch_norm.to_string()),
        }
    }
}

impl FoscPgd {
    /// As [`Attack::perturb`]. `observe` is shown FOSC `[B]` and which images still move (1 or 0,
    /// `[B]`, u8) after each step; seeing it after the last one costs one more gradient.
    pub fn trace(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
        mut observe: Option<Observe<'_>>,
    ) -> Result<Perturbed> {
        let mut probe = Probe::new(classifier, self.batch_norm)?;
        let ball = Ball::new(threat, &batch.images)?;
        let length = Length::Same(self.step_size.value());
        let start = self
            .start
            .points(&ball, &batch.ids, &random.of(Purpose::AttackStart).at(0))?;
        let origin = match self.origin {
            Origin::Image => batch.images.detach(),
            Origin::Start => start.clone(),
        };
        let mut images = start;
        let mut moving = batch.labels.ones_like()?.to_dtype(candle_core::DType::U8)?;
        let looks = self.steps + u64::from(observe.is_some());
        for step in 0..looks {
            let slope = probe.slope(&images, |logits| cross_entropy(logits, &batch.labels))?;
            if step > 0 {
                let left = fosc(threat.norm, threat.epsilon.value(), &origin, &images, &slope.gradient)?;
                moving = (moving * left.gt(&(left.zeros_like()? + self.threshold)?)?)?;
                if let Some(observe) = &mut observe {
                    observe(&left, &moving)?;
                }
            }
            if step < self.steps {
                let next = ball.ascend(&images, &slope.gradient, &length)?;
                let moves = per_image(&moving, &images)?.broadcast_as(images.shape())?;
                images = moves.where_cond(&next, &images)?;
            }
        }
        probe.finish(images)
    }
}
