//! 3×3 convolutions with stride 1 in 2.25 times fewer multiplications: F(2×2, 3×3) of Winograd, as in
//! Lavin and Gray 2016, arXiv:1509.09308.
//!
//! Every 2×2 tile of the output is Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for the 4×4 tile d of the input, so that a
//! layer becomes sixteen matrix products over channels. It rounds a little more than the direct sum:
//! about 1e-6 of the largest number instead of 3e-7.

use rayon::prelude::*;

use super::{Geometry, Padded};
use crate::product::{Packed, Rows, Strided, multiply};

/// The transformed weights G g Gᵀ of one convolution.
pub(crate) struct Winograd {
    /// One matrix `[outputs, inputs]` for each of the sixteen places of a tile.
    weights: Vec<Packed<f32>>,
    inputs: usize,
    outputs: usize,
}

/// Memory that outlives a call.
#[derive(Default)]
pub(crate) struct Scratch {
    transformed: Vec<f32>,
    products: Vec<f32>,
    panel: Vec<f32>,
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
    fn new(outputs: usize, inputs: usize, weight: impl Fn(usize, usize, usize) -> f32 + Sync) -> Self {
        const G: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
        let weights = (0..16).into_par_iter().map(|place| {
            let factors: [f64; 9] = std::array::from_fn(|at| G[place / 4][at / 3] * G[place % 4][at % 3]);
            Packed::new(outputs, inputs, |k, c| {
                let terms = factors.iter().enumerate();
                terms
                    .map(|(at, factor)| factor * f64::from(weight(k, c, at)))
                    .sum::<f64>() as f32
            })
        });
        Self {
            weights: weights.collect(),
            inputs,
            outputs,
        }
    }

    /// For a convolution, if it can be computed so and gains by it.
    pub(crate) fn forward(g: &Geometry, weights: &[f32]) -> Option<Self> {
        let suits = Self::suits(g, [g.out_height, g.out_width]);
        let weight = |k: usize, c: usize, at: usize| weights[(k * g.inputs + c) * 9 + at];
        suits.then(|| Self::new(g.outputs, g.inputs, weight))
    }

    /// For the gradient to its images, likewise: the kernels turned by 180°.
    pub(crate) fn backward(g: &Geometry, weights: &[f32]) -> Option<Self> {
        let suits = g.padding < 3 && Self::suits(g, [g.height, g.width]);
        let weight = |c: usize, k: usize, at: usize| weights[(k * g.inputs + c) * 9 + 8 - at];
        suits.then(|| Self::new(g.inputs, g.outputs, weight))
    }

    fn suits(g: &Geometry, [height, width]: [usize; 2]) -> bool {
        const CHANNELS: usize = 64;
        (g.kernel_height, g.kernel_width, g.stride) == (3, 3, 1)
            && g.inputs.min(g.outputs) >= CHANNELS
            && height % 2 == 0
            && width % 2 == 0
    }

    /// Convolves a batch of images without border, a group per task: `[B, outputs, height, width]`.
    pub(crate) fn batch(&self, padded: &Padded, images: &[f32], [height, width]: [usize; 2]) -> Vec<f32> {
        let image_len = padded.channels * padded.height * padded.width;
        let out_len = self.outputs * height * width;
        let batch = images.len() / image_len;
        let mut out = vec![0.0; batch * out_len];
        let group = super::forward::group(batch, height * width);
        out.par_chunks_mut(group * out_len)
            .zip(images.par_chunks(group * image_len))
            .for_each_init(
                || (Vec::new(), Scratch::default()),
                |(border, scratch), (out, images)| {
                    padded.copy(images, border);
                    let count = images.len() / image_len;
                    let finish = |image: usize, channel: usize, row: usize, column: usize, values: &[f32]| {
                        let start = image * out_len + (channel * height + row) * width + column;
                        out[start..start + values.len()].copy_from_slice(values);
                    };
                    self.run(border, count, [height, width], scratch, finish);
                },
            );
        out
    }

    /// Convolves images with a border (two rows and columns more than `height` and `width`, which are
    /// even). `finish` gets each part of an output row: image, channel, row, first column, numbers.
    pub(crate) fn run(
        &self,
        padded: &[f32],
        images: usize,
        [height, width]: [usize; 2],
        scratch: &mut Scratch,
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
        let Scratch {
            transformed,
            products,
            panel,
        } = scratch;
        transformed.resize(16 * self.inputs * stride, 0.0);
        products.resize(16 * self.outputs * stride, 0.0);
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
                        self.transform(padded, [height + 2, width + 2], run, transformed, stride)
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
                multiply(weights, &right, panel, &mut sink);
            }
            for run in &runs {
                wide(|| per_run!(columns, self.untransform(products, run, stride, &mut finish)));
            }
        }
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
