//! An attack on a frozen network that never leaves the GPU.
//!
//! v ← min(max(v + step · sign ∇L(v), lower), upper), several times over: forward pass, gradient of the
//! loss, backward pass and step are one sequence of kernels, captured once as a CUDA graph and replayed.

use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Tensor;

static REPLAYS: AtomicU64 = AtomicU64::new(0);

/// How many attack steps of this process were replayed from a captured graph.
pub fn replayed_steps() -> u64 {
    REPLAYS.load(Ordering::Relaxed)
}

#[cfg(feature = "cuda")]
pub(crate) fn count_replay() {
    REPLAYS.fetch_add(1, Ordering::Relaxed);
}

/// A loss of logits z that is ascended, one value per example; M = max over k ≠ y of z_k, the first on ties.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// −log p_y.
    CrossEntropy,
    /// KL(p of the clean logits ‖ p).
    Kl,
    /// M − z_y.
    Margin,
    /// −max(z_y − M + κ, 0).
    Cw(f32),
    /// log Σ_{k≠y} exp z_k − z_y.
    SoftMargin,
    /// max(M − z_y + κ, 0).
    Hinge(f32),
}

impl Loss {
    /// As the kernel knows it.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn code(self) -> (i32, f32) {
        match self {
            Self::CrossEntropy => (0, 0.0),
            Self::Kl => (1, 0.0),
            Self::Margin => (2, 0.0),
            Self::Cw(kappa) => (3, kappa),
            Self::SoftMargin => (4, 0.0),
            Self::Hinge(kappa) => (5, kappa),
        }
    }
}

/// What is ascended, from where, and how far.
#[derive(Debug)]
pub struct Ascent<'a> {
    /// Where it starts, `[B, C, H, W]`.
    pub start: &'a Tensor,
    /// No pixel goes below.
    pub lower: &'a Tensor,
    /// No pixel goes above.
    pub upper: &'a Tensor,
    /// Class indices `[B]`, u32.
    pub labels: &'a Tensor,
    /// The unperturbed images' logits `[B, K]`, for [`Loss::Kl`].
    pub clean_logits: Option<&'a Tensor>,
    /// The loss.
    pub loss: Loss,
    /// The length of a step.
    pub step: f64,
    /// How many.
    pub steps: u64,
}

/// Where an ascent ended.
#[derive(Debug, Clone)]
pub struct Ascended {
    /// `[B, C, H, W]`.
    pub images: Tensor,
    /// 1 for an image that met a gradient of zeros on its way, else 0: `[B]`.
    pub stalled: Tensor,
}

#[cfg(feature = "cuda")]
impl Ascent<'_> {
    /// Fails unless shapes and types fit.
    pub(crate) fn check(&self, classes: usize) -> candle_core::Result<()> {
        let batch = self.start.dim(0)?;
        for (name, tensor) in [("lower", self.lower), ("upper", self.upper)] {
            if tensor.dims() != self.start.dims() {
                candle_core::bail!(
                    "ascent: {name} {:?} does not fit {:?}",
                    tensor.dims(),
                    self.start.dims()
                );
            }
        }
        if self.labels.dims() != [batch] || self.labels.dtype() != candle_core::DType::U32 {
            candle_core::bail!("ascent: labels must be [{batch}] u32, not {:?}", self.labels);
        }
        match (self.loss, self.clean_logits) {
            (Loss::Kl, Some(logits)) if logits.dims() == [batch, classes] => Ok(()),
            (Loss::Kl, _) => candle_core::bail!("ascent: the kl loss needs clean logits [{batch}, {classes}]"),
            _ if classes < 2 => candle_core::bail!("ascent: {classes} classes leave no wrong one"),
            _ => Ok(()),
        }
    }
}
