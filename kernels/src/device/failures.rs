//! Which failures a GPU explains: its memory is full, or it is lost.

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

/// The driver's code, if an operation failed because this process has lost the card: it fell off the bus, its
/// memory had an uncorrectable error, or a kernel crashed. Every operation after it fails as well.
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

/// Driver, cuBLAS and cuDNN each have an error type of their own, and Candle wraps them all: only the name of the code
/// is always found.
fn find_name(error: &dyn std::fmt::Debug, codes: &[&'static str]) -> Option<&'static str> {
    let text = format!("{error:?}");
    codes.iter().copied().find(|code| text.contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Error;

    #[test]
    fn full_memory_is_distinguished_from_other_errors() {
        let wrapped = Error::wrap(std::io::Error::other(
            "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
        ));
        assert!(is_out_of_memory(&wrapped.context("while training")));
        assert!(!is_out_of_memory(&Error::msg("DriverError(CUDA_ERROR_NO_DEVICE)")));
    }

    #[test]
    fn a_lost_card_is_distinguished_from_other_errors() {
        let lost = Error::msg("DriverError(CUDA_ERROR_ECC_UNCORRECTABLE, \"uncorrectable ECC error\")");
        assert_eq!(
            super::lost(&lost.context("while training")),
            Some("CUDA_ERROR_ECC_UNCORRECTABLE")
        );
        assert_eq!(super::lost(&Error::msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY)")), None);
        assert_eq!(super::lost(&Error::msg("conv2d: weights are empty")), None);
    }
}
