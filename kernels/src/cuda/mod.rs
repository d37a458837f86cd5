//! The operations on NVIDIA GPUs.
//!
//! `kernels/` is every kernel; `machine` says which of them make up an operation, `program` which make up a network,
//! frozen or in training. They know no GPU, and tests run them on the processor. `card` and `dnn` are the driver's
//! side: NVRTC, cuBLAS, streams, graphs, cuDNN; `operations`, `frozen` and `trained` connect it all with Candle.

pub(crate) mod machine;
pub(crate) mod program;

mod arena;
mod choice;
mod faults;
mod launches;
mod source;

#[cfg(feature = "cuda")]
mod card;
#[cfg(feature = "cuda")]
mod dnn;
#[cfg(feature = "cuda")]
pub(crate) mod frozen;
#[cfg(feature = "cuda")]
pub(crate) mod operations;
#[cfg(feature = "cuda")]
pub(crate) mod trained;

#[cfg(test)]
mod emulator;
#[cfg(test)]
mod tests;

#[cfg(feature = "cuda")]
pub(crate) use card::{describe, open};
