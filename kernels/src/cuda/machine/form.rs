//! How the numbers of an operand lie in memory.

use candle_core::Result;

use super::argument::{Arg, count, flag};

/// In which type and order numbers are stored.
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

    pub(super) fn order(self) -> Arg {
        flag(self.last)
    }
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
pub(super) use typed;

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
    pub(super) fn per_channel(&self) -> u32 {
        self.batch * self.area
    }

    /// How a kernel that treats pixels alike finds a number's channel: index / pixels mod channels.
    pub(super) fn channel_of(&self, form: Form) -> [Arg; 2] {
        let pixels = if form.last { 1 } else { self.area };
        [Arg::U32(self.channels), Arg::U32(pixels)]
    }

    /// Runs into which a channel's numbers are cut for a sum. By size alone, so that sums are the same bits
    /// on every card.
    pub(crate) fn slices(&self, form: Form) -> u32 {
        // With channels last a block has 32 of them to add up, so there are fewer blocks.
        let (per_slice, most) = if form.last { (512, 256) } else { (16_384, 64) };
        self.per_channel().div_ceil(per_slice).clamp(1, most)
    }

    /// Bytes of partial sums.
    pub(crate) fn partial_bytes(&self, form: Form) -> usize {
        2 * 8 * (self.channels * self.slices(form)) as usize
    }
}
