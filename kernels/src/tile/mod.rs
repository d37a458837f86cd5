//! The innermost loops: small tiles of matrix products, kept in registers.
//!
//! A tile has some rows and one or two vectors of columns. Every number of it is one chain of
//! multiply-adds over the depth, in order. So it does not depend on where in its matrix, or in which
//! tile, it is, nor on the neighbouring rows.

mod kernel;
mod loops;
mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "x86_64")]
use crate::processor::{Instructions, instructions};
pub(crate) use kernel::{Columns, Kernel, LARGEST, Rows, Store};

/// The fastest tiles for `f32` that this machine can run.
pub(crate) fn single() -> Kernel<f32> {
    #[cfg(target_arch = "x86_64")]
    match instructions() {
        Instructions::Avx512 => return x86::AVX512,
        Instructions::Avx2 => return x86::AVX2,
        Instructions::Portable => {}
    }
    portable::SINGLE
}

/// The fastest tiles for `f64` that this machine can run.
pub(crate) fn double() -> Kernel<f64> {
    #[cfg(target_arch = "x86_64")]
    if instructions() >= Instructions::Avx2 {
        return x86::AVX2_DOUBLE;
    }
    portable::DOUBLE
}
