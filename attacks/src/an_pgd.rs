//! AN-PGD, the attack inside MMA training: Ding et al. 2020, arXiv:1812.02637.
//!
//! Finds how far each image is from the decision boundary: PGD in a ball of the example's own radius
//! gives a direction u, then bisection along u finds the distance at which SLM = 0.
//!
//! x′ = PGD on SLM in the ball of radius ε₀, steps of 2.5 · ε₀ / steps; u = (x′ − x) / ε₀
//! ε = bisection of SLM(clip(x + ε·u)) = 0 in `[0, ε_max]`, from ε₀; result x + ε·u
//!
//! Images `[B, C, H, W]` in `[0, 1]`; radii `[B]` in pixel units; SLM = log Σ_{k≠y} exp z_k − z_y, in logits.
//! For images that are classified correctly. As in BorealisAI/mma_training (328e2e5) the result is **not
//! clipped** and may leave `[0, 1]`, and the caller says with which passes the search looks at the network:
//! the authors' search uses training mode.

use candle_core::{Result, Tensor};
use models::Classifier;
use random::{Purpose, Stream};

use crate::ball::{Ball, Length, per_image};
use crate::losses::soft_margin;
use crate::{Batch, BatchNorm, Cost, Norm, Probe, Start};

/// AN-PGD.
#[derive(Debug, Clone, PartialEq)]
pub struct AnPgd {
    /// Gradient steps.
    pub steps: u64,
    /// All steps together, in radii; the authors take 2.5.
    pub reach: f64,
    /// Bisections; the authors take 10.
    pub search_steps: u64,
    /// The batch-norm mode of the gradient steps.
    pub batch_norm: BatchNorm,
}

/// What AN-PGD found.
#[derive(Debug, Clone)]
pub struct Boundary {
    /// x + ε·u, `[B, C, H, W]`, detached.
    pub images: Tensor,
    /// ε, `[B]`.
    pub radii: Tensor,
    /// u, `[B, C, H, W]`.
    pub directions: Tensor,
    /// x′, `[B, C, H, W]`.
    pub pgd_images: Tensor,
    /// Each radius the search tried, `[B]`: `search_steps + 1` of them.
    pub radii_tried: Vec<Tensor>,
    /// SLM there, `[B]`.
    pub margins: Vec<Tensor>,
    /// Passes of the gradient steps; the caller counts those of the search.
    pub cost: Cost,
}

impl AnPgd {
    /// `first` `[B]`: ε₀. `largest`: ε_max. `logits`: the logits `[B, K]` of images in the search.
    #[expect(clippy::too_many_arguments, reason = "each is an input of the method")]
    pub fn search(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        norm: Norm,
        first: &Tensor,
        largest: f64,
        random: &Stream,
        logits: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<Boundary> {
        let clean = batch.images.detach();
        let mut probe = Probe::new(classifier, self.batch_norm)?;
        let ball = Ball::with_radii(norm, &clean, first)?;
        let length = Length::Each((ball.radii() * (self.reach / self.steps as f64))?);
        let start = Start::Uniform.points(&ball, &batch.ids, &random.of(Purpose::AttackStart).at(0))?;
        let mut images = ball.project(&start)?;
        for _ in 0..self.steps {
            let slope = probe.slope(&images, |logits| soft_margin(logits, &batch.labels))?;
            images = ball.ascend(&images, &slope.gradient, &length)?;
        }
        let directions = (&images - &clean)?.broadcast_div(&(ball.radii() + 1e-12)?)?;
        let along = |radii: &Tensor| &clean + directions.broadcast_mul(&per_image(radii, &clean)?)?;

        let mut margin = |images: &Tensor| soft_margin(&logits(images)?.detach(), &batch.labels);
        let (mut low, mut high) = (first.zeros_like()?, (first.zeros_like()? + largest)?);
        let mut radii = first.clone();
        let mut margins = vec![margin(&images)?];
        let mut radii_tried = vec![radii.clone()];
        for _ in 0..self.search_steps {
            let last = &margins[margins.len() - 1];
            let right = last.lt(&last.zeros_like()?)?;
            low = right.where_cond(&low.maximum(&radii)?, &low)?;
            high = right.where_cond(&high, &high.minimum(&radii)?)?;
            radii = ((&low + &high)? * 0.5)?;
            margins.push(margin(&along(&radii)?.clamp(0.0, 1.0)?)?);
            radii_tried.push(radii.clone());
        }
        Ok(Boundary {
            images: along(&radii)?,
            radii,
            directions,
            pgd_images: images,
            radii_tried,
            margins,
            cost: probe.cost(),
        })
    }
}
