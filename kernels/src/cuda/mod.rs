//! The operations on NVIDIA GPUs.
//!
//! `kernels.cu` is every kernel; `machine` says which of them make up an operation, `program` which make
//! up a frozen network. Both are independent of a GPU, and tests run them on the processor. `card` is the driver's
//! side: NVRTC, cuDNN, cuBLAS, streams, graphs; `operations` and `frozen` connect it all with Candle.

pub(crate) mod machine;
pub(crate) mod program;

#[cfg(feature = "cuda")]
mod card;
#[cfg(feature = "cuda")]
mod dnn;
#[cfg(feature = "cuda")]
pub(crate) mod frozen;
#[cfg(feature = "cuda")]
pub(crate) mod operations;

#[cfg(test)]
mod emulator;
#[cfg(test)]
mod tests;

#[cfg(feature = "cuda")]
pub(crate) use card::{describe, open};

/// The source of all kernels.
pub(crate) const KERNELS: &str = include_str!("kernels.cu");

/// The names of all kernels.
pub(crate) fn kernel_names() -> impl Iterator<Item = &'static str> {
    let after = KERNELS.split("\nKERNEL ").skip(1);
    after.map(|text| text.split('(').next().unwrap_or_default())
}
