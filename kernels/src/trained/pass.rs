//! One pass of a network in training, and what its gradient needs of it.

use std::sync::Mutex;

use candle_core::{Result, Tensor, bail};

use super::gradients::Gradients;
use super::norm::Moments;
use super::pool::Pool;
use crate::batch_norm::Statistics;
use crate::element::values;
use crate::graph::Recording;

/// One pass of a network.
pub(super) struct Pass {
    /// The network; its parameters are not tracked and contiguous.
    pub(super) recording: Recording,
    pub(super) gradients: Gradients,
    pub(super) pool: Pool,
    pub(super) statistics: Statistics,
    /// Of every dropout; empty for other steps, and without dropout.
    pub(super) factors: Vec<Vec<f32>>,
    /// Whether a gradient may be asked for.
    pub(super) keep: bool,
    pub(super) kept: Mutex<Option<Kept>>,
}

/// What the gradient needs of a forward pass.
pub(super) struct Kept {
    /// The values `[B, H, W, C]` that it reads.
    pub(super) values: Vec<Option<Vec<f32>>>,
    /// What it needs of each step besides.
    pub(super) notes: Vec<Note>,
}

/// What the gradient needs of one step.
#[derive(Default)]
pub(super) struct Note {
    /// The input of a convolution's batch normalisation, `[B, H, W, C]`.
    pub(super) normalised: Vec<f32>,
    pub(super) moments: Option<Moments>,
    /// The places of maxima.
    pub(super) places: Vec<u8>,
}

impl Pass {
    /// Runs with the numbers of all parameters.
    pub(super) fn with_parameters<R>(&self, run: impl FnOnce(&[&[f32]]) -> Result<R>) -> Result<R> {
        let parameters = self.recording.parameters.iter();
        let guards: Vec<_> = parameters.map(Tensor::storage_and_layout).collect();
        let numbers: Result<Vec<&[f32]>> = guards
            .iter()
            .map(|(storage, layout)| match &**storage {
                candle_core::Storage::Cpu(storage) => values::<f32>(storage, layout),
                _ => bail!("trained: only there on the CPU"),
            })
            .collect();
        run(&numbers?)
    }
}
