//! Where tensors live, and how exactly a GPU computes.
//!
//! Everything here can be called in every build. Without the feature `cuda` there is no GPU, and asking
//! for one is an error that says so.

mod failures;
mod gpu;
mod settings;

use candle_core::{Device, Result};

pub use failures::{is_out_of_memory, lost};
pub use gpu::Gpu;
pub use settings::{Precision, Settings, configure, settings};

/// Opens a GPU, counted from 0, with a stream of its own.
///
/// # Errors
/// Says what is missing: the feature, the driver, its version, the card, its compute capability, a library.
#[cfg(feature = "cuda")]
pub fn open(ordinal: usize) -> Result<Device> {
    crate::cuda::open(ordinal)
}

/// Opens a GPU, counted from 0, with a stream of its own.
///
/// # Errors
/// Says what is missing: the feature, the driver, its version, the card, its compute capability, a library.
#[cfg(not(feature = "cuda"))]
pub fn open(_: usize) -> Result<Device> {
    candle_core::bail!("this program was built without CUDA; build it with `--features cuda`")
}

/// The same device with a stream of its own, so that two threads can keep one card busy. Tensors of the two
/// must not be mixed. On the CPU there is nothing to do.
pub fn another(device: &Device) -> Result<Device> {
    match device.location() {
        candle_core::DeviceLocation::Cuda { gpu_id } => open(gpu_id),
        _ => Ok(device.clone()),
    }
}

/// What card a device is; none for the CPU.
#[cfg(feature = "cuda")]
pub fn gpu(device: &Device) -> Result<Option<Gpu>> {
    match device {
        Device::Cuda(device) => crate::cuda::describe(device).map(Some),
        _ => Ok(None),
    }
}

/// What card a device is; none for the CPU.
#[cfg(not(feature = "cuda"))]
pub fn gpu(_: &Device) -> Result<Option<Gpu>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_cuda_says_so() {
        if !cfg!(feature = "cuda") {
            let message = open(0).unwrap_err().to_string();
            assert!(message.contains("--features cuda"), "{message}");
            assert!(gpu(&Device::Cpu).unwrap().is_none());
        }
        assert!(another(&Device::Cpu).unwrap().is_cpu());
    }
}
