//! What a batch normalisation is made of, and how its running statistics move.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use candle_core::{Result, Tensor, Var};

/// The state and constants of one batch normalisation. Every tensor is `[C]`.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    /// Scale.
    pub weight: Tensor,
    /// Shift.
    pub bias: Tensor,
    /// Running mean.
    pub running_mean: Var,
    /// Running unbiased variance.
    pub running_var: Var,
    /// Added to the variance.
    pub epsilon: f64,
    /// The share of the new batch in the running statistics.
    pub momentum: f64,
    /// How often the running statistics were updated: PyTorch's `num_batches_tracked`.
    pub updates: Arc<AtomicI64>,
}

/// Whose mean and variance normalise a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    /// The running ones, left as they are.
    Running,
    /// The batch's own; the running ones are left as they are.
    Batch,
    /// The batch's own; the running ones move towards them.
    BatchAndUpdate,
}

pub(super) fn doubles(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(candle_core::DType::F64)?.to_vec1()
}

/// running ← (1 − momentum) · running + momentum · factor · batch.
pub(crate) fn update(running: &Var, momentum: f64, batch: &[f64], factor: f64) -> Result<()> {
    let moved: Vec<f64> = doubles(running.as_tensor())?
        .iter()
        .zip(batch)
        .map(|(running, batch)| (1.0 - momentum) * running + momentum * factor * batch)
        .collect();
    running.set(&Tensor::new(moved, running.device())?.to_dtype(running.dtype())?)
}
