//! The innermost loops: small tiles of matrix products, kept in registers.
//!
//! A tile has some rows and one or two vectors of columns. Every number of it is one chain of
//! multiply-adds over the depth, in order. So it does not depend on where in its matrix, or in which
//! tile, it lies, nor on the rows beside it.

#[cfg(target_arch = "x86_64")]
use crate::processor::{Instructions, instructions};

/// The most rows of a tile on any machine.
pub(crate) const MOST_ROWS: usize = 12;

/// Room for the largest tile.
pub(crate) const LARGEST: usize = MOST_ROWS * 32;

/// The heights a tile may have, in the order in which rows are cut.
const HEIGHTS: [usize; 5] = [12, 6, 4, 2, 1];

/// Rows of a left operand that lie anywhere in memory, each in pieces: row i of the product is made
/// of `values[starts[i] + taps[t] + k]` for every t, then every k below `run`.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) starts: &'a [usize],
    pub(crate) taps: &'a [usize],
    pub(crate) run: usize,
}

/// Two operands whose rows are the depth: for every pair of starts, `count` steps from there on.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a, T> {
    pub(crate) left: &'a [T],
    pub(crate) right: &'a [T],
    pub(crate) starts: &'a [(usize, usize)],
    pub(crate) count: usize,
    pub(crate) left_step: usize,
    pub(crate) right_step: usize,
}

/// Whether sums are added to what a tile holds, or take its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Replace,
    Add,
}

/// The tiles of one number type on this machine.
#[derive(Clone, Copy)]
pub(crate) struct Kernel<T: 'static> {
    /// The most rows of a tile.
    pub(crate) rows: usize,
    /// Numbers in a vector: the columns of a narrow tile. A wide one has twice as many.
    pub(crate) lanes: usize,
    /// tile[i, j] = Σ_{t, k} left row i · panel[t, k, j], for `panel` `[taps, run, columns]` and `tile`
    /// `[rows, columns]`.
    pub(crate) dots: fn(left: &Rows<'_, T>, panel: &[T], columns: usize, store: Store, tile: &mut [T]),
    /// tile[i, j] = Σ_p left[p, i] · right[p, j], for `rows` rows.
    pub(crate) outer: fn(operands: &Columns<'_, T>, rows: usize, columns: usize, tile: &mut [T]),
    /// Σ_{t, k} values[taps[t] + k] · weights[t, k] for k below `run`: several chains side by side, then
    /// added in order.
    pub(crate) dot: fn(values: &[T], taps: &[usize], run: usize, weights: &[T]) -> T,
}

impl<T> Kernel<T> {
    /// Columns of a wide tile.
    pub(crate) fn columns(&self) -> usize {
        2 * self.lanes
    }

    /// The heights of the tiles that cover `rows` rows.
    pub(crate) fn cut(&self, rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        let most = self.rows;
        let mut start = 0;
        std::iter::from_fn(move || {
            let height = HEIGHTS.into_iter().find(|&height| height <= most.min(rows - start))?;
            start += height;
            Some(start - height..start)
        })
    }
}

/// The fastest tiles for `f32` that this machine can run.
pub(crate) fn single() -> Kernel<f32> {
    #[cfg(target_arch = "x86_64")]
    match instructions() {
        Instructions::Avx512 => return x86::AVX512,
        Instructions::Avx2 => return x86::AVX2,
        Instructions::Portable => {}
    }
    PORTABLE
}

/// The fastest tiles for `f64` that this machine can run.
pub(crate) fn double() -> Kernel<f64> {
    #[cfg(target_arch = "x86_64")]
    if instructions() >= Instructions::Avx2 {
        return x86::AVX2_DOUBLE;
    }
    PORTABLE_DOUBLE
}

/// Defines a [`Kernel`] over vectors of some type. `$features` are those that its functions are
/// compiled for; whoever offers the kernel has found them on this machine.
macro_rules! kernel {
    ($kernel:ident, $module:ident, $number:ty, $lanes:literal, $rows:literal, $vector:ty, [$($features:literal)?],
     $load:expr, $store:expr, $broadcast:expr, $fused:expr, $add:expr) => {
        pub(super) const $kernel: Kernel<$number> = Kernel {
            rows: $rows,
            lanes: $lanes,
            dots: $module::dots,
            outer: $module::outer,
            dot: $module::dot,
        };

        mod $module {
            #[allow(unused_imports, reason = "the portable kernels need none of it")]
            use super::*;

            const LANES: usize = $lanes;

            pub(super) fn dots(
                left: &Rows<'_, $number>,
                panel: &[$number],
                columns: usize,
                how: Store,
                tile: &mut [$number],
            ) {
                #[allow(unsafe_code, unused_unsafe, reason = "the functions may need CPU features")]
                // SAFETY: whoever offers the kernel has found its features on this machine.
                unsafe {
                    match (left.starts.len(), columns / LANES) {
                        ($rows, 2) => dots_of::<$rows, 2>(left, panel, how, tile),
                        #[allow(unreachable_patterns, reason = "where the tallest tile has 6 rows")]
                        (6, 2) => dots_of::<6, 2>(left, panel, how, tile),
                        (4, 2) => dots_of::<4, 2>(left, panel, how, tile),
                        (2, 2) => dots_of::<2, 2>(left, panel, how, tile),
                        (1, 2) => dots_of::<1, 2>(left, panel, how, tile),
                        ($rows, 1) => dots_of::<$rows, 1>(left, panel, how, tile),
                        #[allow(unreachable_patterns, reason = "as above")]
                        (6, 1) => dots_of::<6, 1>(left, panel, how, tile),
                        (4, 1) => dots_of::<4, 1>(left, panel, how, tile),
                        (2, 1) => dots_of::<2, 1>(left, panel, how, tile),
                        (1, 1) => dots_of::<1, 1>(left, panel, how, tile),
                        (rows, vectors) => unreachable!("no tile of {rows} rows and {vectors} vectors"),
                    }
                }
            }

            pub(super) fn outer(
                it: &Columns<'_, $number>,
                rows: usize,
                columns: usize,
                tile: &mut [$number],
            ) {
                #[allow(unsafe_code, unused_unsafe, reason = "the functions may need CPU features")]
                // SAFETY: as in `dots`.
                unsafe {
                    match (rows, columns / LANES) {
                        ($rows, 2) => outer_of::<$rows, 2>(it, tile),
                        #[allow(unreachable_patterns, reason = "as in `dots`")]
                        (6, 2) => outer_of::<6, 2>(it, tile),
                        (4, 2) => outer_of::<4, 2>(it, tile),
                        (2, 2) => outer_of::<2, 2>(it, tile),
                        (1, 2) => outer_of::<1, 2>(it, tile),
                        ($rows, 1) => outer_of::<$rows, 1>(it, tile),
                        #[allow(unreachable_patterns, reason = "as in `dots`")]
                        (6, 1) => outer_of::<6, 1>(it, tile),
                        (4, 1) => outer_of::<4, 1>(it, tile),
                        (2, 1) => outer_of::<2, 1>(it, tile),
                        (1, 1) => outer_of::<1, 1>(it, tile),
                        (rows, vectors) => unreachable!("no tile of {rows} rows and {vectors} vectors"),
                    }
                }
            }

            pub(super) fn dot(values: &[$number], taps: &[usize], run: usize, weights: &[$number]) -> $number {
                #[allow(unsafe_code, unused_unsafe, reason = "the function may need CPU features")]
                // SAFETY: as in `dots`.
                unsafe {
                    dot_of(values, taps, run, weights)
                }
            }

            $(#[target_feature(enable = $features)])?
            fn dot_of(values: &[$number], taps: &[usize], run: usize, weights: &[$number]) -> $number {
                let mut sums = [$broadcast(0.0); 4];
                let mut rest = 0.0;
                for (&tap, weights) in taps.iter().zip(weights.chunks_exact(run)) {
                    let (values, values_rest) = values[tap..][..run].as_chunks::<LANES>();
                    let (weights, weights_rest) = weights.as_chunks::<LANES>();
                    let (values_of_four, last_values) = values.as_chunks::<4>();
                    let (weights_of_four, last_weights) = weights.as_chunks::<4>();
                    for (values, weights) in values_of_four.iter().zip(weights_of_four) {
                        for i in 0..4 {
                            sums[i] = $fused($load(&values[i]), $load(&weights[i]), sums[i]);
                        }
                    }
                    for (values, weights) in last_values.iter().zip(last_weights) {
                        sums[0] = $fused($load(values), $load(weights), sums[0]);
                    }
                    for (&value, &weight) in values_rest.iter().zip(weights_rest) {
                        rest += value * weight;
                    }
                }
                let sum: [$number; LANES] = $store($add($add(sums[0], sums[1]), $add(sums[2], sums[3])));
                sum.iter().sum::<$number>() + rest
            }

            // Loops over registers, which are unrolled.
            #[allow(clippy::needless_range_loop)]
            $(#[target_feature(enable = $features)])?
            fn dots_of<const ROWS: usize, const VECTORS: usize>(
                left: &Rows<'_, $number>,
                panel: &[$number],
                how: Store,
                tile: &mut [$number],
            ) {
                let starts: &[usize; ROWS] = left.starts.try_into().expect("as many rows as the tile has");
                let mut sums = [[$broadcast(0.0); VECTORS]; ROWS];
                let (panel, _) = panel.as_chunks::<LANES>();
                for (&tap, panel) in left.taps.iter().zip(panel.chunks_exact(left.run * VECTORS)) {
                    let mut rows: [&[$number]; ROWS] = [&[]; ROWS];
                    for i in 0..ROWS {
                        rows[i] = &left.values[starts[i] + tap..][..left.run];
                    }
                    let (panel, _) = panel.as_chunks::<VECTORS>();
                    for (k, vectors) in (0..left.run).zip(panel) {
                        let mut loaded = [$broadcast(0.0); VECTORS];
                        for v in 0..VECTORS {
                            loaded[v] = $load(&vectors[v]);
                        }
                        for i in 0..ROWS {
                            let number = $broadcast(rows[i][k]);
                            for v in 0..VECTORS {
                                sums[i][v] = $fused(number, loaded[v], sums[i][v]);
                            }
                        }
                    }
                }
                put(&sums, how, tile);
            }

            $(#[target_feature(enable = $features)])?
            fn outer_of<const ROWS: usize, const VECTORS: usize>(
                it: &Columns<'_, $number>,
                tile: &mut [$number],
            ) {
                let mut sums = [[$broadcast(0.0); VECTORS]; ROWS];
                for &(left, right) in it.starts {
                    let (left, right) = (&it.left[left..], &it.right[right..]);
                    for p in 0..it.count {
                        let left: &[$number; ROWS] = left[p * it.left_step..].first_chunk().expect("a row of the tile");
                        let right = &right[p * it.right_step..][..LANES * VECTORS];
                        let (right, _) = right.as_chunks::<LANES>();
                        let vectors: [$vector; VECTORS] = std::array::from_fn(|v| $load(&right[v]));
                        for i in 0..ROWS {
                            let number = $broadcast(left[i]);
                            for v in 0..VECTORS {
                                sums[i][v] = $fused(number, vectors[v], sums[i][v]);
                            }
                        }
                    }
                }
                put(&sums, Store::Replace, tile);
            }

            $(#[target_feature(enable = $features)])?
            fn put<const ROWS: usize, const VECTORS: usize>(
                sums: &[[$vector; VECTORS]; ROWS],
                how: Store,
                tile: &mut [$number],
            ) {
                let (out, _) = tile.as_chunks_mut::<LANES>();
                for (out, &sum) in out.iter_mut().zip(sums.as_flattened()) {
                    *out = $store(match how {
                        Store::Replace => sum,
                        Store::Add => $add($load(out), sum),
                    });
                }
            }
        }
    };
}

/// Arithmetic on arrays, for machines without the vectors below.
mod plain {
    pub(super) fn broadcast<T: Copy, const N: usize>(value: T) -> [T; N] {
        [value; N]
    }

    pub(super) fn fused<T, const N: usize>(a: [T; N], b: [T; N], c: [T; N]) -> [T; N]
    where
        T: Copy + std::ops::Mul<Output = T> + std::ops::Add<Output = T>,
    {
        std::array::from_fn(|i| c[i] + a[i] * b[i])
    }

    pub(super) fn add<T, const N: usize>(a: [T; N], b: [T; N]) -> [T; N]
    where
        T: Copy + std::ops::Add<Output = T>,
    {
        std::array::from_fn(|i| a[i] + b[i])
    }
}

mod portable {
    use super::plain::{add, broadcast, fused};
    use super::{Columns, Kernel, Rows, Store};

    kernel!(
        SINGLE,
        single,
        f32,
        8,
        6,
        [f32; 8],
        [],
        |v: &[f32; 8]| *v,
        |v| v,
        broadcast::<f32, 8>,
        fused,
        add
    );
    kernel!(
        DOUBLE,
        double,
        f64,
        4,
        6,
        [f64; 4],
        [],
        |v: &[f64; 4]| *v,
        |v| v,
        broadcast::<f64, 4>,
        fused,
        add
    );
}

const PORTABLE: Kernel<f32> = portable::SINGLE;
const PORTABLE_DOUBLE: Kernel<f64> = portable::DOUBLE;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Columns, Kernel, Rows, Store};

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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers, whose products are exact in any order.
    fn numbers<T: From<i8>>(count: usize, seed: usize) -> Vec<T> {
        let number = |i: usize| (((i + seed) * 7 + (i + seed) / 5) % 11) as i8 - 5;
        (0..count).map(|i| number(i).into()).collect()
    }

    /// Every size of tile against plain loops.
    fn check<T: From<i8> + Copy + PartialEq + std::fmt::Debug + Default + Into<f64>>(kernel: Kernel<T>) {
        let sum = |terms: &mut dyn Iterator<Item = (T, T)>| -> f64 {
            terms.map(|(a, b): (T, T)| -> f64 { a.into() * b.into() }).sum()
        };
        for height in HEIGHTS.into_iter().filter(|&height| height <= kernel.rows) {
            for columns in [kernel.lanes, kernel.columns()] {
                for (taps, run) in [(vec![3], 1), (vec![0, 40, 7], 17), (vec![5, 2], 9)] {
                    let left: Vec<T> = numbers(height * 61 + 100, 0);
                    let panel: Vec<T> = numbers(taps.len() * run * columns, 3);
                    let starts: Vec<usize> = (0..height).map(|i| (i * 61) % (height * 53 + 1)).collect();
                    let rows = Rows {
                        values: &left,
                        starts: &starts,
                        taps: &taps,
                        run,
                    };
                    let mut tile = [T::default(); LARGEST];
                    (kernel.dots)(&rows, &panel, columns, Store::Replace, &mut tile);
                    let once = tile;
                    (kernel.dots)(&rows, &panel, columns, Store::Add, &mut tile);
                    for i in 0..height {
                        for j in 0..columns {
                            let depth = (0..taps.len()).flat_map(|t| (0..run).map(move |k| (t, k)));
                            let mut terms =
                                depth.map(|(t, k)| (left[starts[i] + taps[t] + k], panel[(t * run + k) * columns + j]));
                            let expected = sum(&mut terms);
                            assert_eq!(once[i * columns + j].into(), expected, "{height}x{columns}");
                            assert_eq!(tile[i * columns + j].into(), 2.0 * expected, "{height}x{columns} added");
                        }
                    }
                }
                let (left, right): (Vec<T>, Vec<T>) = (numbers(400, 1), numbers(900, 2));
                let operands = Columns {
                    left: &left,
                    right: &right,
                    starts: &[(0, 4), (17, 0), (2, 90)],
                    count: 9,
                    left_step: 13,
                    right_step: 35,
                };
                let mut tile = [T::default(); LARGEST];
                (kernel.outer)(&operands, height, columns, &mut tile);
                for i in 0..height {
                    for j in 0..columns {
                        let depth = operands.starts.iter().flat_map(|&it| (0..9).map(move |p| (it, p)));
                        let mut terms = depth.map(|((a, b), p)| (left[a + p * 13 + i], right[b + p * 35 + j]));
                        assert_eq!(
                            tile[i * columns + j].into(),
                            sum(&mut terms),
                            "outer {height}x{columns}"
                        );
                    }
                }
            }
        }
        for run in [1, 5, 16, 67, 130] {
            let (values, weights): (Vec<T>, Vec<T>) = (numbers(400, 4), numbers(2 * run, 5));
            let taps = [3, 150];
            let mut terms = (0..2).flat_map(|t| (0..run).map(move |k| (t, k)));
            let mut terms = terms.by_ref().map(|(t, k)| (values[taps[t] + k], weights[t * run + k]));
            let dot = (kernel.dot)(&values, &taps, run, &weights);
            assert_eq!(dot.into(), sum(&mut terms), "dot of {run}");
        }
    }

    #[test]
    fn every_tile_multiplies() {
        check(single());
        check(double());
        check(PORTABLE);
        check(PORTABLE_DOUBLE);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            check(x86::AVX2);
        }
    }

    #[test]
    fn rows_are_cut_into_heights_there_are() {
        for rows in 0..40 {
            for kernel in [single(), PORTABLE] {
                let mut next = 0;
                for range in kernel.cut(rows) {
                    assert_eq!(range.start, next);
                    assert!(range.len() <= kernel.rows && HEIGHTS.contains(&range.len()));
                    next = range.end;
                }
                assert_eq!(next, rows);
            }
        }
    }
}
