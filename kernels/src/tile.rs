//! The innermost loop: a small tile of a matrix product, kept in registers.
//!
//! Every number of a tile is one chain of multiply-adds over the depth, in order. So it does not
//! depend on where in its matrix, or in which tile, it lies.

/// Room for the largest tile.
pub(crate) const LARGEST: usize = 12 * 32;

/// The tile of one number type on this machine.
#[derive(Clone, Copy)]
pub(crate) struct Kernel<T> {
    /// Rows of a tile.
    pub(crate) rows: usize,
    /// Columns of a tile.
    pub(crate) columns: usize,
    /// tile[i, j] = Σ_k a[k, i] · b[k, j] for `a` `[depth, rows]`, `b` `[depth, columns]`.
    pub(crate) run: fn(a: &[T], b: &[T], tile: &mut [T; LARGEST]),
}

/// The fastest tile for `f32` that this machine can run.
pub(crate) fn single() -> Kernel<f32> {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return Kernel {
                rows: 12,
                columns: 32,
                run: x86::avx512,
            };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Kernel {
                rows: 6,
                columns: 16,
                run: x86::avx2,
            };
        }
    }
    Kernel {
        rows: 4,
        columns: 16,
        run: portable::<f32, 4, 16>,
    }
}

/// The fastest tile for `f64` that this machine can run.
pub(crate) fn double() -> Kernel<f64> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        return Kernel {
            rows: 6,
            columns: 8,
            run: x86::avx2_double,
        };
    }
    Kernel {
        rows: 4,
        columns: 8,
        run: portable::<f64, 4, 8>,
    }
}

fn portable<T, const ROWS: usize, const COLUMNS: usize>(a: &[T], b: &[T], tile: &mut [T; LARGEST])
where
    T: Copy + Default + std::ops::Mul<Output = T> + std::ops::Add<Output = T>,
{
    let mut sums = [[T::default(); COLUMNS]; ROWS];
    for (a, b) in a.chunks_exact(ROWS).zip(b.chunks_exact(COLUMNS)) {
        for (sums, &a) in sums.iter_mut().zip(a) {
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum = *sum + a * b;
            }
        }
    }
    for (out, sums) in tile.chunks_exact_mut(COLUMNS).zip(&sums) {
        out.copy_from_slice(sums);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::LARGEST;

    /// Wraps a loop over vector registers in a safe function of slices.
    macro_rules! kernel {
        ($name:ident, $number:ty, $vector:ty, $features:literal, $rows:literal, $lanes:literal, $broadcast:ident,
         $fused:ident) => {
            pub(super) fn $name(a: &[$number], b: &[$number], tile: &mut [$number; LARGEST]) {
                const COLUMNS: usize = 2 * $lanes;
                const { assert!($rows * COLUMNS <= LARGEST) };

                fn load(values: &[$number; $lanes]) -> $vector {
                    #[allow(unsafe_code, reason = "a vector register from an array")]
                    // SAFETY: both are $lanes numbers without padding, and every bit pattern is one.
                    unsafe {
                        std::mem::transmute(*values)
                    }
                }

                fn store(vector: $vector) -> [$number; $lanes] {
                    #[allow(unsafe_code, reason = "an array from a vector register")]
                    // SAFETY: as in `load`.
                    unsafe {
                        std::mem::transmute(vector)
                    }
                }

                #[target_feature(enable = $features)]
                fn run(a: &[$number], b: &[$number], tile: &mut [$number; LARGEST]) {
                    let (a, _) = a.as_chunks::<$rows>();
                    let (b, _) = b.as_chunks::<COLUMNS>();
                    let zero = $broadcast(0.0);
                    let mut sums = [[zero; 2]; $rows];
                    for (a, b) in a.iter().zip(b) {
                        let (halves, _) = b.as_chunks::<$lanes>();
                        let (left, right) = (load(&halves[0]), load(&halves[1]));
                        for (sums, &a) in sums.iter_mut().zip(a) {
                            let a = $broadcast(a);
                            sums[0] = $fused(a, left, sums[0]);
                            sums[1] = $fused(a, right, sums[1]);
                        }
                    }
                    let (out, _) = tile.as_chunks_mut::<$lanes>();
                    for (out, sum) in out.iter_mut().zip(sums.as_flattened()) {
                        *out = store(*sum);
                    }
                }
                #[allow(unsafe_code, reason = "the function needs CPU features")]
                // SAFETY: the selection of kernels found the features on this machine.
                unsafe {
                    run(a, b, tile);
                }
            }
        };
    }

    kernel!(avx512, f32, __m512, "avx512f", 12, 16, _mm512_set1_ps, _mm512_fmadd_ps);
    kernel!(avx2, f32, __m256, "avx2,fma", 6, 8, _mm256_set1_ps, _mm256_fmadd_ps);
    kernel!(
        avx2_double,
        f64,
        __m256d,
        "avx2,fma",
        6,
        4,
        _mm256_set1_pd,
        _mm256_fmadd_pd
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a kernel on small integers, whose products are exact in any order.
    fn check<T: From<i8> + Copy + PartialEq + std::fmt::Debug + Default>(kernel: Kernel<T>) {
        let number = |i: usize| (i * 7 % 11) as i8 - 5;
        for depth in [0, 1, 2, 37] {
            let a: Vec<T> = (0..depth * kernel.rows).map(|i| number(i).into()).collect();
            let b: Vec<T> = (0..depth * kernel.columns).map(|i| number(i + 3).into()).collect();
            let mut tile = [T::default(); LARGEST];
            (kernel.run)(&a, &b, &mut tile);
            for i in 0..kernel.rows {
                for j in 0..kernel.columns {
                    let products = (0..depth).map(|k| {
                        i32::from(number(k * kernel.rows + i)) * i32::from(number(k * kernel.columns + j + 3))
                    });
                    let expected: i32 = products.sum();
                    assert_eq!(
                        format!("{:?}", tile[i * kernel.columns + j]),
                        format!("{expected}.0").replace("-0.0", "0.0")
                    );
                }
            }
        }
    }

    #[test]
    fn every_kernel_multiplies() {
        check(single());
        check(double());
        check(Kernel {
            rows: 4,
            columns: 16,
            run: portable::<f32, 4, 16>,
        });
        check(Kernel {
            rows: 4,
            columns: 8,
            run: portable::<f64, 4, 8>,
        });
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            check(Kernel {
                rows: 6,
                columns: 16,
                run: x86::avx2,
            });
        }
    }
}
