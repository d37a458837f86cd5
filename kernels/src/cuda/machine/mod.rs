//! What a GPU does, told apart from how it is told: sequences of kernel launches and convolutions.
//!
//! The card runs them through the driver, a recorder keeps them for later, and in tests an emulator runs the same
//! sequences with the same kernels on the processor.

mod elements;
mod logits;
mod norm;
mod pool;
mod steps;

pub(crate) use elements::*;
pub(crate) use logits::*;
pub(crate) use norm::*;
pub(crate) use pool::*;
pub(crate) use steps::*;

use candle_core::{Result, bail};

use crate::convolution::Geometry;

/// A place in a machine's memory; 0 is nowhere.
pub(crate) type Address = u64;

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Arg {
    At(Address),
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    F64(f64),
}

/// Blocks and threads of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) blocks: [u32; 2],
    pub(crate) threads: u32,
}

const THREADS: u32 = 256;

/// Threads that run in step.
const WARP: u32 = 32;

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
    fn rows(n: u32) -> Self {
        Self {
            blocks: [n.div_ceil(WARP).max(1), 1],
            threads: WARP,
        }
    }

    /// A whole block for each of x · y sums.
    fn sums(x: u32, y: u32) -> Self {
        Self {
            blocks: [x, y],
            threads: THREADS,
        }
    }

    /// A warp for each of `n` short sums.
    fn short_sums(n: u32) -> Self {
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

/// Something that runs kernels, in the order in which it is told.
pub(crate) trait Machine {
    fn launch(&self, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()>;

    /// Images, weights and result lie `at` their places, read or written as the pass says, gradients in the place of
    /// what they are gradients of. `accumulate` adds to what is there.
    fn convolve(&self, convolution: &Convolve, pass: Pass, at: [Address; 3], accumulate: bool) -> Result<()>;
}

/// A loop of a kernel over `n` numbers.
fn each(machine: &impl Machine, kernel: &'static str, n: u32, args: &[Arg]) -> Result<()> {
    machine.launch(kernel, Grid::over(n), args)
}

/// A number of elements that kernels can count.
pub(crate) fn count(elements: usize) -> Result<u32> {
    match u32::try_from(elements) {
        Ok(count) if count <= i32::MAX as u32 => Ok(count),
        _ => bail!("{elements} numbers are more than one kernel takes; use a smaller batch"),
    }
}

/// In which type and order numbers lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    /// bfloat16 instead of f32.
    pub(crate) half: bool,
    /// Channels last, in images and in weights.
    pub(crate) last: bool,
}

impl Form {
    /// Bytes of a number.
    pub(crate) fn width(self) -> usize {
        if self.half { 2 } else { 4 }
    }

    fn order(self) -> Arg {
        flag(self.last)
    }
}

fn flag(value: bool) -> Arg {
    Arg::I32(i32::from(value))
}

/// Names of a kernel for f32 and bfloat16.
macro_rules! typed {
    ($form:expr, $name:literal) => {
        if $form.half {
            concat!($name, "_bf16")
        } else {
            concat!($name, "_f32")
        }
    };
}
pub(crate) use typed;

/// Batch, channels and pixels of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) batch: u32,
    pub(crate) channels: u32,
    pub(crate) area: u32,
}

impl Extent {
    /// Of a tensor `[B, C, …]`.
    pub(crate) fn new(dims: &[usize]) -> Result<Self> {
        count(dims.iter().product())?;
        Ok(Self {
            batch: dims[0] as u32,
            channels: dims[1] as u32,
            area: dims[2..].iter().product::<usize>() as u32,
        })
    }

    pub(crate) fn len(&self) -> u32 {
        self.batch * self.channels * self.area
    }

    /// Numbers of one channel.
    fn per_channel(&self) -> u32 {
        self.batch * self.area
    }

    /// How a kernel that treats pixels alike finds a number's channel: index / pixels mod channels.
    fn channel_of(&self, form: Form) -> [Arg; 2] {
        let pixels = if form.last { 1 } else { self.area };
        [Arg::U32(self.channels), Arg::U32(pixels)]
    }

    /// Runs into which a channel's numbers are cut for a sum. By size alone, so that sums are the same bits
    /// on every card.
    pub(crate) fn slices(&self, form: Form) -> u32 {
        // With channels last a block has 32 of them to add up, and there are as many fewer blocks.
        let (per_slice, most) = if form.last { (512, 256) } else { (16_384, 64) };
        self.per_channel().div_ceil(per_slice).clamp(1, most)
    }

    /// Bytes of partial sums.
    pub(crate) fn partial_bytes(&self, form: Form) -> usize {
        2 * 8 * (self.channels * self.slices(form)) as usize
    }
}
