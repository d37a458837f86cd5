//! What the two passes of a frozen network's program are written with.

use candle_core::Result;

use super::parameters::Parameters;
use super::regions::PARAMETERS;
use crate::convolution::Geometry;
use crate::cuda::arena::{Arena, Buffer};
use crate::cuda::launches::{Recorder, place};
use crate::cuda::machine::{Address, Machine, Pass};
use crate::cuda::program::batch::{Batch, at};

/// Writes the launches of one program.
pub(super) struct Writer<'a> {
    pub(super) batch: Batch<'a>,
    pub(super) parameters: &'a Parameters,
    pub(super) arena: Arena,
    pub(super) launches: Recorder,
}

pub(super) fn at_or_nowhere(buffer: Option<Buffer>) -> Address {
    buffer.map_or(0, at)
}

impl<'a> Writer<'a> {
    pub(super) fn new(batch: Batch<'a>, parameters: &'a Parameters) -> Self {
        Self {
            batch,
            parameters,
            arena: Arena::default(),
            launches: Recorder::default(),
        }
    }

    /// Room for a value.
    pub(super) fn take(&mut self, value: usize) -> Buffer {
        self.arena.take(self.batch.bytes(value))
    }

    /// A convolution between images and result.
    pub(super) fn convolve(
        &self,
        geometry: Geometry,
        pass: Pass,
        [images, result]: [Address; 2],
        index: usize,
        accumulate: bool,
    ) -> Result<()> {
        let convolve = self.batch.convolve(geometry);
        let weights = place(PARAMETERS, self.parameters.folded[index].weight);
        self.launches
            .convolve(&convolve, pass, [images, weights, result], accumulate)
    }
}
