//! Where tensors live, and how exactly a GPU computes.
//!
//! Everything here can be called in every build. Without the feature `cuda` there is no GPU, and asking
//! for one is an error that says so.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use candle_core::{Device, Result};

/// How convolutions on a GPU multiply. Everything else is computed in f32, sums in f64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// Products of numbers rounded to 10 bits of mantissa, sums in f32: what PyTorch does unless told otherwise.
    #[default]
    Tf32,
    /// f32 throughout.
    F32,
    /// Images, weights and gradients of convolutions rounded to bfloat16, sums in f32. Parameters stay f32.
    Bf16,
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "tf32" => Ok(Self::Tf32),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(format!("there is no precision `{other}`; known: tf32, f32, bf16")),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tf32 => "tf32",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// What holds for every GPU of this process. The CPU knows one way only, which is exact and repeatable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How convolutions multiply.
    pub precision: Precision,
    /// Whether the same work on the same card gives the same bits. Otherwise convolutions take the
    /// algorithm that was fastest when they first ran.
    pub deterministic: bool,
    /// Whether an attack step of a frozen network is captured once and replayed as a CUDA graph.
    pub graphs: bool,
    /// Whether frozen networks keep channels last.
    pub channels_last: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            precision: Precision::Tf32,
            deterministic: false,
            graphs: true,
            channels_last: true,
        }
    }
}

static PRECISION: AtomicU8 = AtomicU8::new(0);
static DETERMINISTIC: AtomicBool = AtomicBool::new(false);
static GRAPHS: AtomicBool = AtomicBool::new(true);
static CHANNELS_LAST: AtomicBool = AtomicBool::new(true);

/// Sets how GPUs compute from now on. Networks that are frozen already keep their ways.
pub fn configure(settings: Settings) {
    let precision = match settings.precision {
        Precision::Tf32 => 0,
        Precision::F32 => 1,
        Precision::Bf16 => 2,
    };
    PRECISION.store(precision, Ordering::Relaxed);
    DETERMINISTIC.store(settings.deterministic, Ordering::Relaxed);
    GRAPHS.store(settings.graphs, Ordering::Relaxed);
    CHANNELS_LAST.store(settings.channels_last, Ordering::Relaxed);
}

/// How GPUs compute.
pub fn settings() -> Settings {
    Settings {
        precision: match PRECISION.load(Ordering::Relaxed) {
            0 => Precision::Tf32,
            1 => Precision::F32,
            _ => Precision::Bf16,
        },
        deterministic: DETERMINISTIC.load(Ordering::Relaxed),
        graphs: GRAPHS.load(Ordering::Relaxed),
        channels_last: CHANNELS_LAST.load(Ordering::Relaxed),
    }
}

/// What a GPU is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// The card's name.
    pub name: String,
    /// Compute capability, such as (9, 0).
    pub capability: (i32, i32),
    /// Bytes of memory that are free, and all of them.
    pub memory: (usize, usize),
    /// The CUDA version that the driver speaks, as 1000 · major + 10 · minor.
    pub driver: i32,
    /// The version of cuDNN, as 10000 · major + 100 · minor + patch.
    pub cudnn: usize,
}

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

/// The same place with a stream of its own, so that two threads can keep one card busy. Tensors of the two
/// must not meet. On the CPU there is nothing to do.
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

/// Whether an operation failed because the card's memory is full.
pub fn is_out_of_memory(error: &dyn std::fmt::Debug) -> bool {
    let codes = [
        "CUDA_ERROR_OUT_OF_MEMORY",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "ALLOCATION_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
    ];
    find_name(error, &codes).is_some()
}

/// The driver's code, if an operation failed because the card is lost to this process: fallen off the bus, an
/// uncorrectable error of its memory, or a kernel that broke. Every operation after it fails as well.
pub fn lost(error: &dyn std::fmt::Debug) -> Option<&'static str> {
    find_name(
        error,
        &[
            "CUDA_ERROR_DEINITIALIZED",
            "CUDA_ERROR_DEVICE_UNAVAILABLE",
            "CUDA_ERROR_ECC_UNCORRECTABLE",
            "CUDA_ERROR_NVLINK_UNCORRECTABLE",
            "CUDA_ERROR_CONTAINED",
            "CUDA_ERROR_CONTEXT_IS_DESTROYED",
            "CUDA_ERROR_ILLEGAL_ADDRESS",
            "CUDA_ERROR_ILLEGAL_INSTRUCTION",
            "CUDA_ERROR_MISALIGNED_ADDRESS",
            "CUDA_ERROR_HARDWARE_STACK_ERROR",
            "CUDA_ERROR_LAUNCH_FAILED",
            "CUDA_ERROR_LAUNCH_TIMEOUT",
            "CUDA_ERROR_MPS_CLIENT_TERMINATED",
            "CUDA_ERROR_NO_DEVICE",
            "CUDA_ERROR_UNKNOWN",
        ],
    )
}

/// Driver, cuBLAS and cuDNN each have an error type of their own, and Candle wraps them all: the code's name tells.
fn find_name(error: &dyn std::fmt::Debug, codes: &[&'static str]) -> Option<&'static str> {
    let text = format!("{error:?}");
    codes.iter().copied().find(|code| text.contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Error;

    #[test]
    fn a_build_without_cuda_says_so() {
        if !cfg!(feature = "cuda") {
            let message = open(0).unwrap_err().to_string();
            assert!(message.contains("--features cuda"), "{message}");
            assert!(gpu(&Device::Cpu).unwrap().is_none());
        }
        assert!(another(&Device::Cpu).unwrap().is_cpu());
    }

    #[test]
    fn full_memory_is_told_from_other_errors() {
        let wrapped = Error::wrap(std::io::Error::other(
            "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
        ));
        assert!(is_out_of_memory(&wrapped.context("while training")));
        assert!(!is_out_of_memory(&Error::msg("DriverError(CUDA_ERROR_NO_DEVICE)")));
    }

    #[test]
    fn a_lost_card_is_told_from_other_errors() {
        let lost = Error::msg("DriverError(CUDA_ERROR_ECC_UNCORRECTABLE, \"uncorrectable ECC error\")");
        assert_eq!(
            super::lost(&lost.context("while training")),
            Some("CUDA_ERROR_ECC_UNCORRECTABLE")
        );
        assert_eq!(super::lost(&Error::msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY)")), None);
        assert_eq!(super::lost(&Error::msg("conv2d: weights are empty")), None);
    }

    #[test]
    fn precisions_are_read_as_they_are_written() {
        for precision in [Precision::Tf32, Precision::F32, Precision::Bf16] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert!("f64".parse::<Precision>().unwrap_err().contains("known: tf32"));
    }
}
