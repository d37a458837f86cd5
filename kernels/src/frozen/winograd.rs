//! 3×3 convolutions with stride 1 in 2.25 times fewer multiplications: F(2×2, 3×3) of Winograd, as in
//! Lavin and Gray 2016, arXiv:1509.09308.
//!
//! Every 2×2 tile of the output is Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for the 4×4 tile d of the input, so that a
//! layer becomes sixteen matrix products over channels. It rounds a little more than the direct sum:
//! about 1e-6 of the largest number instead of 3e-7.

use super::Workspace;
use crate::product::{Packed, Rows, Strided, multiply};

/// The transformed weights G g Gᵀ of one convolution.
pub(super) struct Winograd {
    /// One matrix `[outputs, inputs]` for each of the sixteen places of a tile.
    weights: Vec<Packed<f32>>,
    inputs: usize,
    outputs: usize,
}

/// The most tiles side by side that are worked on together. Loops run over a fixed number of tiles, so
/// rows of transformed numbers lie this much further apart than they need to.
const RUN: usize = 16;

/// Calls a function generic over the tiles per run with the least that cover a row of tiles.
macro_rules! per_run {
    ($columns:expr, $object:ident . $function:ident ( $($argument:expr),* )) => {
        match $columns {
            0..=4 => $object.$function::<4>($($argument),*),
            5..=8 => $object.$function::<8>($($argument),*),
            _ => $object.$function::<RUN>($($argument),*),
        }
    };
}

impl Winograd {
    /// For weights `[outputs, inputs, 3, 3]`, given number by number.
    pub(super) fn new(outputs: usize, inputs: usize, weight: impl Fn(usize, usize, usize) -> f32) -> Self {
        const G: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
        let mut transformed = vec![vec![0.0; outputs * inputs]; 16];
        for k in 0..outputs {
            for c in 0..inputs {
                let g: [f64; 9] = std::array::from_fn(|at| f64::from(weight(k, c, at)));
                for (i, row) in G.iter().enumerate() {
                    let half: [f64; 3] = std::array::from_fn(|s| row[0] * g[s] + row[1] * g[3 + s] + row[2] * g[6 + s]);
                    for (j, column) in G.iter().enumerate() {
                        let sum = half[0] * column[0] + half[1] * column[1] + half[2] * column[2];
                        transformed[4 * i + j][k * inputs + c] = sum as f32;
                    }
                }
            }
        }
        let pack = |matrix: &Vec<f32>| Packed::new(outputs, inputs, |k, c| matrix[k * inputs + c]);
        Self {
            weights: transformed.iter().map(pack).collect(),
            inputs,
            outputs,
        }
    }

    /// Convolves images with a border (two rows and columns more than `height` and `width`, which are
    /// even). `finish` gets each part of an output row: image, channel, row, first column, numbers.
    pub(super) fn run(
        &self,
        padded: &[f32],
        images: usize,
        [height, width]: [usize; 2],
        work: &mut Workspace,
        mut finish: impl FnMut(usize, usize, usize, usize, &[f32]),
    ) {
        let [rows, columns] = [height / 2, width / 2];
        let tiles = images * rows * columns;
        // As many tiles as let both transforms stay in the caches.
        let chunk = ((1 << 18) / (16 * (self.inputs + self.outputs)))
            .next_multiple_of(16)
            .clamp(32, 256)
            .min(tiles);
        let stride = chunk + RUN;
        let mut transformed = work.take(16 * self.inputs * stride);
        let mut products = work.take(16 * self.outputs * stride);
        for first in (0..tiles).step_by(chunk) {
            let count = chunk.min(tiles - first);
            let mut runs = Vec::new();
            let mut tile = first;
            while tile < first + count {
                let (image, place) = (tile / (rows * columns), tile % (rows * columns));
                let (row, column) = (place / columns, place % columns);
                let length = (columns - column).min(first + count - tile).min(RUN);
                runs.push(Run {
                    at: tile - first,
                    image,
                    row,
                    column,
                    length,
                });
                tile += length;
            }
            for run in &runs {
                wide(|| {
                    per_run!(
                        columns,
                        self.transform(padded, [height + 2, width + 2], run, &mut transformed, stride)
                    )
                });
            }
            let inputs = transformed.chunks_exact(self.inputs * stride);
            let outputs = products.chunks_exact_mut(self.outputs * stride);
            for (weights, (input, output)) in self.weights.iter().zip(inputs.zip(outputs)) {
                let right = Strided {
                    values: input,
                    columns: count,
                    depth_stride: stride,
                    column_stride: 1,
                };
                let mut sink = Rows { values: output, stride };
                multiply(weights, &right, &mut work.panel, &mut sink);
            }
            for run in &runs {
                wide(|| per_run!(columns, self.untransform(&products, run, stride, &mut finish)));
            }
        }
        work.give(transformed);
        work.give(products);
    }

    /// Bᵀ d B of every channel for a run of tiles.
    #[inline(always)]
    fn transform<const N: usize>(
        &self,
        padded: &[f32],
        [height, width]: [usize; 2],
        run: &Run,
        out: &mut [f32],
        stride: usize,
    ) {
        let start = run.image * self.inputs * height * width + 2 * run.row * width + 2 * run.column;
        for channel in 0..self.inputs {
            let mut d = [[[0.0; N]; 4]; 4];
            for r in 0..4 {
                let row = &padded[start + (channel * height + r) * width..][..2 * N + 2];
                for j in 0..N {
                    for c in 0..4 {
                        d[c][r][j] = row[2 * j + c];
                    }
                }
            }
            let vertical = d.map(|d: [[f32; N]; 4]| -> [[f32; N]; 4] {
                [
                    std::array::from_fn(|j| d[0][j] - d[2][j]),
                    std::array::from_fn(|j| d[1][j] + d[2][j]),
                    std::array::from_fn(|j| d[2][j] - d[1][j]),
                    std::array::from_fn(|j| d[1][j] - d[3][j]),
                ]
            });
            let [first, second, third, fourth] = vertical;
            let rows = first.iter().zip(second.iter().zip(third.iter().zip(&fourth)));
            for (i, (a, (b, (c, d)))) in rows.enumerate() {
                let row: [[f32; N]; 4] = [
                    std::array::from_fn(|j| a[j] - c[j]),
                    std::array::from_fn(|j| b[j] + c[j]),
                    std::array::from_fn(|j| c[j] - b[j]),
                    std::array::from_fn(|j| b[j] - d[j]),
                ];
                for (j, values) in row.iter().enumerate() {
                    let start = ((4 * i + j) * self.inputs + channel) * stride + run.at;
                    out[start..start + N].copy_from_slice(values);
                }
            }
        }
    }

    /// Aᵀ m A of every channel for a run of tiles: two output rows.
    #[inline(always)]
    fn untransform<const N: usize>(
        &self,
        products: &[f32],
        run: &Run,
        stride: usize,
        finish: &mut impl FnMut(usize, usize, usize, usize, &[f32]),
    ) {
        for channel in 0..self.outputs {
            let mut m = [[0.0; N]; 16];
            for (place, m) in m.iter_mut().enumerate() {
                let start = (place * self.outputs + channel) * stride + run.at;
                m.copy_from_slice(&products[start..start + N]);
            }
            let top: [[f32; N]; 4] =
                std::array::from_fn(|c| std::array::from_fn(|j| m[c][j] + m[4 + c][j] + m[8 + c][j]));
            let bottom: [[f32; N]; 4] =
                std::array::from_fn(|c| std::array::from_fn(|j| m[4 + c][j] - m[8 + c][j] - m[12 + c][j]));
            for (r, y) in [top, bottom].iter().enumerate() {
                let mut row = [[0.0; 2]; N];
                for (j, pair) in row.iter_mut().enumerate() {
                    *pair = [y[0][j] + y[1][j] + y[2][j], y[1][j] - y[2][j] - y[3][j]];
                }
                let row = &row.as_flattened()[..2 * run.length];
                finish(run.image, channel, 2 * run.row + r, 2 * run.column, row);
            }
        }
    }
}

/// Tiles of one row of tiles.
struct Run {
    /// The first one's place among the tiles in work.
    at: usize,
    image: usize,
    row: usize,
    column: usize,
    length: usize,
}

/// Runs a loop compiled for the widest registers there are.
#[inline(always)]
fn wide(run: impl FnOnce()) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn compiled(run: impl FnOnce()) {
            run();
        }
        if is_x86_feature_detected!("avx2") {
            #[allow(unsafe_code, reason = "the function needs CPU features")]
            // SAFETY: the feature has just been found on this machine.
            unsafe {
                return compiled(run);
            }
        }
    }
    run();
}
