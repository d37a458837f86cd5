//! What the two passes of a program of a network in training are written with.

use candle_core::Result;

use crate::convolution::Geometry;
use crate::cuda::arena::{Arena, Buffer};
use crate::cuda::launches::Recorder;
use crate::cuda::machine::{Address, Extent, Form, Machine, Moments, Pass};
use crate::cuda::program::batch::Batch;

/// What a program depends on besides the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) form: Form,
    pub(crate) batch: usize,
    /// Whether running statistics move.
    pub(crate) update: bool,
    /// Whether dropout takes factors; else it changes nothing.
    pub(crate) dropout: bool,
    /// Whether the images' gradient is wanted.
    pub(crate) to_images: bool,
}

/// Writes the launches of one program.
pub(super) struct Writer<'a> {
    pub(super) batch: Batch<'a>,
    pub(super) variant: Variant,
    /// Where each parameter's gradient starts, in numbers.
    pub(super) gradients: &'a [usize],
    /// Parameters whose gradient is written.
    pub(super) reached: Vec<bool>,
    pub(super) arena: Arena,
    pub(super) launches: Recorder,
}

/// What the backward pass needs.
pub(super) struct Kept {
    /// The values that it reads.
    pub(super) values: Vec<Option<Buffer>>,
    pub(super) notes: Vec<Note>,
}

/// What it needs of one layer besides.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Note {
    /// Weights in the program's form.
    pub(super) weight: Address,
    /// The input of a convolution's normalisation.
    pub(super) normalised: Option<Buffer>,
    pub(super) moments: Option<Moments>,
    /// Of maxima.
    pub(super) places: Option<Buffer>,
    /// A dropout's factors.
    pub(super) factors: Address,
}

impl<'a> Writer<'a> {
    pub(super) fn new(batch: Batch<'a>, variant: Variant, gradients: &'a [usize]) -> Self {
        Self {
            batch,
            variant,
            gradients,
            reached: vec![false; gradients.len()],
            arena: Arena::default(),
            launches: Recorder::default(),
        }
    }

    /// Room for a value.
    pub(super) fn take(&mut self, value: usize) -> Buffer {
        self.arena.take(self.batch.bytes(value))
    }

    pub(super) fn give(&mut self, buffer: Option<Buffer>) {
        if let Some(buffer) = buffer {
            self.arena.give(buffer);
        }
    }

    /// Writes a convolution of the whole batch.
    pub(super) fn convolve(&self, geometry: Geometry, pass: Pass, at: [Address; 3], accumulate: bool) -> Result<()> {
        self.launches
            .convolve(&self.batch.convolve(geometry), pass, at, accumulate)
    }
}

/// Weights `[K, C, R, S]` as images of R·S pixels.
pub(super) fn weight_extent(geometry: &Geometry) -> Extent {
    Extent {
        batch: geometry.outputs as u32,
        channels: geometry.inputs as u32,
        area: geometry.kernel_pixels() as u32,
    }
}
