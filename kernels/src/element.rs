//! The two number types, and how operations get at their numbers.

use candle_core::{CpuStorage, Layout, Result, Tensor, WithDType, bail};

use crate::tile::{self, Kernel};
use crate::transpose::block::{self, TransposeBlock};

/// `f32` or `f64`.
pub(crate) trait Element: WithDType + Default {
    /// The tile in which this machine multiplies matrices of such numbers.
    fn kernel() -> Kernel<Self>;

    /// A storage's numbers, to be changed.
    fn numbers_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;

    /// How this machine transposes a block of such numbers.
    fn transpose_block() -> TransposeBlock<Self>;
}

impl Element for f32 {
    fn kernel() -> Kernel<Self> {
        tile::single()
    }

    fn numbers_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F32(numbers) => Some(numbers),
            _ => None,
        }
    }

    fn transpose_block() -> TransposeBlock<Self> {
        block::single()
    }
}

impl Element for f64 {
    fn kernel() -> Kernel<Self> {
        tile::double()
    }

    fn numbers_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F64(numbers) => Some(numbers),
            _ => None,
        }
    }

    fn transpose_block() -> TransposeBlock<Self> {
        block::portable
    }
}

/// The numbers of a contiguous tensor.
pub(crate) fn values<'a, T: Element>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("operand of shape {:?} is not contiguous", layout.shape());
    };
    Ok(&storage.as_slice::<T>()?[start..end])
}

/// Calls a function generic over [`Element`] with the type that a storage holds.
macro_rules! dispatch {
    ($storage:expr, $op:expr, $function:ident ( $($argument:expr),* )) => {
        match $storage {
            candle_core::CpuStorage::F32(_) => $function::<f32>($($argument),*),
            candle_core::CpuStorage::F64(_) => $function::<f64>($($argument),*),
            other => candle_core::bail!("{}: {:?} is neither f32 nor f64", $op, candle_core::backend::BackendStorage::dtype(other)),
        }
    };
}
pub(crate) use dispatch;

/// Runs a function on a tensor's numbers, which must be in the computer's memory.
pub(crate) fn on_cpu<R>(op: &str, tensor: &Tensor, run: impl FnOnce(&CpuStorage, &Layout) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(storage) => run(storage, layout),
        _ => bail!("{op}: only there on the CPU"),
    }
}
