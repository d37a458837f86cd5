//! The L2 attack inside TRADES: Zhang et al. 2019, arXiv:1901.08573.
//!
//! δ ← δ + (2ε/steps) · g / ‖g‖₂, g = ∇ KL(p(x) ‖ p(x + δ)); δ ← clip(x + δ) − x; if ‖δ‖₂ > ε, δ ← δ · ε/‖δ‖₂
//!
//! Images `[B, C, H, W]` in `[0, 1]`; it starts at normal noise of standard deviation 0.001. It differs from
//! L2 PGD in that even the smallest gradient makes a whole step, which matters: at the start p(x + δ) ≈ p(x).
//! Deviation from yaodongyu/TRADES (6e8e11b): where the gradient is exactly 0 the code moves at random, we stay.

use candle_core::{Result, Tensor};
use models::Classifier;
use random::{Purpose, Stream};

use crate::ball::{Ball, l2_norms};
use crate::{Attack, Batch, BatchNorm, Description, Loss, Norm, Perturbed, Pixels, Probe, Start, Threat};

/// The L2 attack inside TRADES.
#[derive(Debug, Clone, PartialEq)]
pub struct TradesL2 {
    /// Gradient steps.
    pub steps: u64,
    /// The length of a step; `None`: 2ε/steps.
    pub step_size: Option<Pixels>,
    /// Where it starts.
    pub start: Start,
    /// The batch-norm mode in which the network is attacked.
    pub batch_norm: BatchNorm,
}

impl Attack for TradesL2 {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        self.trace(classifier, batch, threat, random, &mut |_| Ok(()))
    }

    fn describe(&self) -> Description {
        Description {
            steps: Some(self.steps),
            step_size: self.step_size,
            restarts: Some(1),
            loss: Some(Loss::Kl.to_string()),
            start: Some(self.start.to_string()),
            batch_norm: Some(self.batch_norm.to_string()),
        }
    }
}

impl TradesL2 {
    /// As [`Attack::perturb`], showing x + δ before each step, then the result, to `observe`.
    pub fn trace(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
        observe: &mut dyn FnMut(&Tensor) -> Result<()>,
    ) -> Result<Perturbed> {
        if threat.norm != Norm::L2 {
            candle_core::bail!("the L2 attack of TRADES under the norm {}", threat.norm);
        }
        let epsilon = threat.epsilon.value();
        let step_size = self.step_size.map_or(2.0 * epsilon / self.steps as f64, Pixels::value);
        let mut probe = Probe::new(classifier, self.batch_norm)?;
        let clean_logits = probe.logits(&batch.images)?;
        let clean = batch.images.detach();
        let ball = Ball::new(threat, &clean)?;
        let start = self
            .start
            .points(&ball, &batch.ids, &random.of(Purpose::AttackStart).at(0))?;
        let mut change = (start - &clean)?;
        for _ in 0..self.steps {
            let images = (&clean + &change)?;
            observe(&images)?;
            let slope = probe.slope(&images, |logits| {
                Loss::Kl.per_example(logits, &batch.labels, Some(&clean_logits))
            })?;
            // Below the floor squares vanish in float32; only an exact 0 should not move.
            let unit = slope
                .gradient
                .broadcast_div(&l2_norms(&slope.gradient)?.maximum(1e-19)?)?;
            change = (change + (unit * step_size)?)?;
            change = ((&clean + change)?.clamp(0.0, 1.0)? - &clean)?;
            let norms = l2_norms(&change)?;
            let shrink = ((norms + 1e-7)?.recip()? * epsilon)?.minimum(1.0)?;
            change = change.broadcast_mul(&shrink)?;
        }
        let images = (clean + change)?.clamp(0.0, 1.0)?;
        observe(&images)?;
        probe.finish(images)
    }
}
