//! The machine, and what it runs: kernels and convolutions.

use candle_core::Result;

use super::argument::{Address, Arg};
use super::form::Form;
use crate::convolution::Geometry;

/// Blocks and threads of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) blocks: [u32; 2],
    pub(crate) threads: u32,
}

const THREADS: u32 = 256;

/// Threads that run in step.
pub(super) const WARP: u32 = 32;

impl Grid {
    /// For a loop over `n` numbers.
    pub(crate) fn over(n: u32) -> Self {
        // More blocks than run at once on any card gain nothing; the loop strides.
        const MOST: u32 = 4096;
        Self {
            blocks: [n.div_ceil(THREADS).clamp(1, MOST), 1],
            threads: THREADS,
        }
    }

    /// For loops over few, long rows.
    pub(super) fn rows(n: u32) -> Self {
        Self {
            blocks: [n.div_ceil(WARP).max(1), 1],
            threads: WARP,
        }
    }

    /// A whole block for each of x · y sums.
    pub(super) fn sums(x: u32, y: u32) -> Self {
        Self {
            blocks: [x, y],
            threads: THREADS,
        }
    }

    /// A warp for each of `n` short sums.
    pub(super) fn short_sums(n: u32) -> Self {
        Self {
            blocks: [n, 1],
            threads: WARP,
        }
    }
}

/// Which product of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pass {
    /// Images and weights to the result.
    Forward,
    /// The result's gradient and weights to the images' gradient.
    ToImages,
    /// Images and the result's gradient to the weights' gradient.
    ToWeights,
}

/// A convolution as a machine needs it described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Convolve {
    pub(crate) geometry: Geometry,
    pub(crate) form: Form,
}

/// Something that runs kernels in the order of the calls.
pub(crate) trait Machine {
    fn launch(&self, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()>;

    /// Images, weights and result are `at` their places, read or written as the pass says, gradients in the place of
    /// what they are gradients of. `accumulate` adds to the numbers there.
    fn convolve(&self, convolution: &Convolve, pass: Pass, at: [Address; 3], accumulate: bool) -> Result<()>;
}

/// A loop of a kernel over `n` numbers.
pub(super) fn each(machine: &impl Machine, kernel: &'static str, n: u32, args: &[Arg]) -> Result<()> {
    machine.launch(kernel, Grid::over(n), args)
}
