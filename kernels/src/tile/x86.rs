//! Tiles in the vector registers of x86-64 processors.

use std::arch::x86_64::*;

use super::kernel::{Columns, Kernel, Rows, Store};
use super::loops::kernel;

/// A vector register from an array and back.
macro_rules! register {
    ($load:ident, $store:ident, $number:ty, $lanes:literal, $vector:ty) => {
        #[allow(unsafe_code, reason = "a vector register from an array")]
        fn $load(values: &[$number; $lanes]) -> $vector {
            // SAFETY: both are as many numbers without padding, and every bit pattern is one.
            unsafe { std::mem::transmute(*values) }
        }

        #[allow(unsafe_code, reason = "an array from a vector register")]
        fn $store(vector: $vector) -> [$number; $lanes] {
            // SAFETY: as for loading.
            unsafe { std::mem::transmute(vector) }
        }
    };
}

register!(load16, store16, f32, 16, __m512);
register!(load8, store8, f32, 8, __m256);
register!(load4, store4, f64, 4, __m256d);

kernel!(
    AVX512,
    avx512,
    f32,
    16,
    12,
    __m512,
    ["avx512f"],
    load16,
    store16,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps
);
kernel!(
    AVX2,
    avx2,
    f32,
    8,
    6,
    __m256,
    ["avx2,fma"],
    load8,
    store8,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps
);
kernel!(
    AVX2_DOUBLE,
    avx2_double,
    f64,
    4,
    6,
    __m256d,
    ["avx2,fma"],
    load4,
    store4,
    _mm256_set1_pd,
    _mm256_fmadd_pd,
    _mm256_add_pd
);
