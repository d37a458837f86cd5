//! Square blocks of numbers, transposed at once.

#[cfg(target_arch = "x86_64")]
use crate::processor::{Instructions, instructions};

/// The side of the blocks.
pub(crate) const BLOCK: usize = 8;

/// Transposes one block: (from, from_step, to, to_step).
pub(crate) type TransposeBlock<T> = fn(&[T], usize, &mut [T], usize);

/// The fastest way for `f32` on this machine.
pub(crate) fn single() -> TransposeBlock<f32> {
    #[cfg(target_arch = "x86_64")]
    if instructions() >= Instructions::Avx2 {
        return x86::block;
    }
    portable
}

/// On any machine.
pub(crate) fn portable<T: Copy>(from: &[T], from_step: usize, to: &mut [T], to_step: usize) {
    for i in 0..BLOCK {
        let row: &[T; BLOCK] = from[i * from_step..].first_chunk().expect("a whole block");
        for (j, value) in row.iter().enumerate() {
            to[j * to_step + i] = *value;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::BLOCK;

    pub(super) fn block(from: &[f32], from_step: usize, to: &mut [f32], to_step: usize) {
        #[allow(unsafe_code, reason = "the function needs CPU features")]
        // SAFETY: `single` has found them on this machine.
        unsafe {
            block_of(from, from_step, to, to_step);
        }
    }

    /// Interleaves neighbouring rows number by number, then pair by pair, then half by half.
    #[target_feature(enable = "avx2")]
    fn block_of(from: &[f32], from_step: usize, to: &mut [f32], to_step: usize) {
        let row: [__m256; BLOCK] = std::array::from_fn(|i| {
            let row: &[f32; BLOCK] = from[i * from_step..].first_chunk().expect("a whole block");
            #[allow(unsafe_code, reason = "a vector register from an array")]
            // SAFETY: both are eight numbers without padding, and every bit pattern is one.
            unsafe {
                std::mem::transmute::<[f32; BLOCK], __m256>(*row)
            }
        });
        let pairs: [__m256; BLOCK] = std::array::from_fn(|i| {
            let (upper, lower) = (row[i / 2 * 2], row[i / 2 * 2 + 1]);
            match i % 2 {
                0 => _mm256_unpacklo_ps(upper, lower),
                _ => _mm256_unpackhi_ps(upper, lower),
            }
        });
        let quads: [__m256; BLOCK] = std::array::from_fn(|i| {
            let (upper, lower) = (pairs[i / 4 * 4 + i % 4 / 2], pairs[i / 4 * 4 + i % 4 / 2 + 2]);
            match i % 2 {
                0 => _mm256_shuffle_ps::<0b01_00_01_00>(upper, lower),
                _ => _mm256_shuffle_ps::<0b11_10_11_10>(upper, lower),
            }
        });
        for j in 0..BLOCK {
            let (upper, lower) = (quads[j % 4], quads[j % 4 + 4]);
            let column = match j / 4 {
                0 => _mm256_permute2f128_ps::<0x20>(upper, lower),
                _ => _mm256_permute2f128_ps::<0x31>(upper, lower),
            };
            #[allow(unsafe_code, reason = "an array from a vector register")]
            // SAFETY: as above.
            let column = unsafe { std::mem::transmute::<__m256, [f32; BLOCK]>(column) };
            to[j * to_step..][..BLOCK].copy_from_slice(&column);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portable_block_is_the_same() {
        let from: Vec<f32> = (0..80).map(|i| i as f32).collect();
        let (mut one, mut other) = (vec![0.0; 80], vec![0.0; 80]);
        portable(&from, 10, &mut one, 9);
        single()(&from, 10, &mut other, 9);
        assert_eq!(one, other);
    }
}
