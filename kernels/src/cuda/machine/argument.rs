//! The arguments of kernels.

use candle_core::{Result, bail};

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

pub(super) fn flag(value: bool) -> Arg {
    Arg::I32(i32::from(value))
}

/// A number of elements that kernels can count.
pub(crate) fn count(elements: usize) -> Result<u32> {
    match u32::try_from(elements) {
        Ok(count) if count <= i32::MAX as u32 => Ok(count),
        _ => bail!("{elements} numbers are more than one kernel takes; use a smaller batch"),
    }
}
