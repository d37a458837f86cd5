//! 3×3 convolutions with stride 1 in 2.25 times fewer multiplications: F(2×2, 3×3) of Winograd, as in
//! Lavin and Gray 2016, arXiv:1509.09308.
//!
//! Every 2×2 tile of the output is Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for the 4×4 tile d of the input, so that a
//! layer becomes sixteen matrix products over channels. It rounds a little more than the direct sum:
//! about 1e-6 of the largest number instead of 3e-7.

use rayon::prelude::*;

use super::Geometry;
use super::part::{Plain, Sink, in_groups};
use crate::frame::Frame;
use crate::lanes::LANES;
use crate::product::{Packed, Panel, multiply_panel_into};
use crate::wide::wide;

/// The transformed weights G g Gᵀ of one convolution.
pub(crate) struct Winograd {
    /// One matrix `[inputs, outputs]` for each of the sixteen places of a tile.
    weights: Vec<Packed<f32>>,
    inputs: usize,
    outputs: usize,
    /// Rows and columns of zeros that the transform skips where frames have more than it reads.
    skip: [usize; 2],
    height: usize,
    width: usize,
}

/// Memory that outlives a call.
#[derive(Default)]
pub(crate) struct Scratch {
    transformed: Vec<f32>,
    products: Vec<f32>,
}

impl Scratch {
    /// Runs with the calling thread's own.
    pub(crate) fn of_thread<R>(run: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
        }
        SCRATCH.with_borrow_mut(run)
    }
}

type Lanes = [f32; LANES];

impl Winograd {
    /// For weights `[outputs, inputs, 3, 3]`, given number by number.
    fn new(outputs: usize, inputs: usize, weight: impl Fn(usize, usize, usize) -> f32 + Sync) -> Self {
        let mut weights: Vec<Packed<f32>> = (0..16).map(|_| Packed::zeros(&[0], inputs, outputs)).collect();
        // For every panel of outputs, its numbers in each of the sixteen matrices.
        let mut panels: Vec<(Panel, Vec<&mut [f32]>)> = weights[0].panels().map(|panel| (panel, Vec::new())).collect();
        for packed in &mut weights {
            for ((_, places), numbers) in panels.iter_mut().zip(packed.panels_mut()) {
                places.push(numbers);
            }
        }
        panels.par_iter_mut().for_each(|(panel, places)| {
            for c in 0..inputs {
                // Sixteen outputs at a time, so that the arithmetic is side by side.
                for first in (0..panel.columns).step_by(LANES) {
                    let mut g = [[0.0; LANES]; 9];
                    for (at, lanes) in g.iter_mut().enumerate() {
                        for (lane, number) in lanes.iter_mut().enumerate() {
                            *number = weight(panel.column + first + lane, c, at);
                        }
                    }
                    let mut out = [[0.0; LANES]; 16];
                    transform_weights(&g, &mut out);
                    for (numbers, lanes) in places.iter_mut().zip(&out) {
                        numbers[c * panel.width + first..][..LANES].copy_from_slice(lanes);
                    }
                }
            }
        });
        Self {
            weights,
            inputs,
            outputs,
            skip: [0; 2],
            height: 0,
            width: 0,
        }
    }

    /// For a convolution over frames with its border or more, if it can be computed so and gains by it.
    pub(crate) fn forward(g: &Geometry, weights: &[f32], frame: &Frame) -> Option<Self> {
        let suits = Self::suits(g, [g.out_height, g.out_width]);
        let weight = |k: usize, c: usize, at: usize| weights[(k * g.inputs + c) * 9 + at];
        suits.then(|| Self {
            skip: frame.before.map(|before| before - g.padding),
            height: g.out_height,
            width: g.out_width,
            ..Self::new(g.outputs, g.inputs, weight)
        })
    }

    /// The same for the gradient to its images: kernels rotated by 180°.
    pub(crate) fn backward(g: &Geometry, weights: &[f32], frame: &Frame) -> Option<Self> {
        let least = g.gradient_frame().before;
        let suits = g.padding < 3 && Self::suits(g, [g.height, g.width]);
        let weight = |c: usize, k: usize, at: usize| weights[(k * g.inputs + c) * 9 + 8 - at];
        suits.then(|| Self {
            skip: std::array::from_fn(|axis| frame.before[axis] - least[axis]),
            height: g.height,
            width: g.width,
            ..Self::new(g.inputs, g.outputs, weight)
        })
    }

    fn suits(g: &Geometry, [height, width]: [usize; 2]) -> bool {
        (g.kernel_height, g.kernel_width, g.stride) == (3, 3, 1)
            && g.inputs.is_multiple_of(LANES)
            && g.outputs.is_multiple_of(LANES)
            && g.inputs.min(g.outputs) >= 32
            && height % 2 == 0
            && width % 2 == 0
    }

    /// Convolves a batch of images without border: `[N, outputs, height, width]`.
    /// `finish` gets whole pixels, channels side by side.
    pub(crate) fn batch(&self, input: &Frame, images: &[f32], finish: impl Fn(&mut [f32]) + Sync) -> Vec<f32> {
        let out = Frame::bare([self.outputs, self.height, self.width]);
        in_groups(input, images, &out, |frames, count, results| {
            Scratch::of_thread(|scratch| self.run(frames, count, input, &out, scratch, &mut Plain(results)));
            finish(results);
        })
    }

    /// Convolves images in frames; the result is in frames `out`.
    pub(crate) fn run(
        &self,
        values: &[f32],
        images: usize,
        input: &Frame,
        out: &Frame,
        scratch: &mut Scratch,
        sink: &mut impl Sink<f32>,
    ) {
        // As many tiles as let their transforms stay in the second cache, but enough to be worth a pass
        // over the weights.
        const NUMBERS: usize = 1 << 17;
        let chunk = (NUMBERS / (16 * self.inputs)).clamp(48, 192) / 12 * 12;
        let [rows, columns] = [self.height / 2, self.width / 2];
        let tiles = images * rows * columns;
        let chunk = chunk.min(tiles);
        let Scratch { transformed, products } = scratch;
        transformed.resize(16 * chunk * self.inputs, 0.0);
        let (mut starts, mut places) = (Vec::with_capacity(chunk), Vec::with_capacity(chunk));
        let lines: Vec<usize> = (0..chunk).map(|tile| tile * self.inputs).collect();
        for first in (0..tiles).step_by(chunk) {
            starts.clear();
            places.clear();
            for tile in first..tiles.min(first + chunk) {
                let (image, place) = (tile / (rows * columns), tile % (rows * columns));
                let (i, j) = (2 * (place / columns), 2 * (place % columns));
                let corner = (i + self.skip[0]) * input.row_step() + (j + self.skip[1]) * self.inputs;
                starts.push(image * input.len() + corner);
                places.push(image * out.len() + out.at(i, j));
            }
            let count = starts.len();
            let size = count * self.inputs;
            transform(
                values,
                &starts,
                input.row_step(),
                self.inputs,
                &mut transformed[..16 * size],
            );
            for panel in self.weights[0].panels() {
                let width = panel.width;
                products.resize(16 * count * width, 0.0);
                for ((weights, input), output) in self
                    .weights
                    .iter()
                    .zip(transformed.chunks_exact(size))
                    .zip(products.chunks_exact_mut(count * width))
                {
                    multiply_panel_into(input, &lines[..count], weights, panel, output);
                }
                untransform(products, panel.column, &places, [out.row_step(), out.channels], sink);
            }
        }
    }
}

wide! {
    /// G g Gᵀ, in double precision, for kernels side by side.
    fn transform_weights[](g: &[Lanes; 9], out: &mut [Lanes; 16]) {
        for lane in 0..LANES {
            let g: [f64; 9] = std::array::from_fn(|at| f64::from(g[at][lane]));
            let column = |a: f64, b: f64, c: f64| [a, (a + b + c) * 0.5, (a - b + c) * 0.5, c];
            let rows: [[f64; 4]; 3] = std::array::from_fn(|j| column(g[j], g[3 + j], g[6 + j]));
            for i in 0..4 {
                for (j, value) in column(rows[0][i], rows[1][i], rows[2][i]).into_iter().enumerate() {
                    out[4 * i + j][lane] = value as f32;
                }
            }
        }
    }
}

wide! {
    /// Bᵀ d B of every channel of every tile: `[16, tiles, channels]`.
    fn transform[](values: &[f32], starts: &[usize], row_step: usize, channels: usize, out: &mut [f32]) {
        let size = starts.len() * channels;
        for (tile, &start) in starts.iter().enumerate() {
            let rows: [&[f32]; 4] = std::array::from_fn(|r| &values[start + r * row_step..][..4 * channels]);
            for channel in (0..channels).step_by(LANES) {
                let mut columns = [[[0.0; LANES]; 4]; 4];
                for (s, column) in columns.iter_mut().enumerate() {
                    let at = s * channels + channel;
                    let mut d = [[0.0; LANES]; 4];
                    for (d, row) in d.iter_mut().zip(&rows) {
                        *d = *row[at..].first_chunk().expect("a tile inside its frame");
                    }
                    *column = [sub(d[0], d[2]), add(d[1], d[2]), sub(d[2], d[1]), sub(d[1], d[3])];
                }
                #[allow(clippy::needless_range_loop, reason = "columns of arrays of arrays")]
                for r in 0..4 {
                    let [a, b, c, d] = [columns[0][r], columns[1][r], columns[2][r], columns[3][r]];
                    for (s, value) in [sub(a, c), add(b, c), sub(c, b), sub(b, d)].iter().enumerate() {
                        let at = (4 * r + s) * size + tile * channels + channel;
                        out[at..at + LANES].copy_from_slice(value);
                    }
                }
            }
        }
    }
}

wide! {
    /// Aᵀ m A of every channel of every tile, handed on pixel by pixel. `products` has some channels, from
    /// `first` on; `steps` lead to the pixel below and to the right.
    fn untransform[S: Sink<f32>](
        products: &[f32],
        first: usize,
        places: &[usize],
        steps: [usize; 2],
        sink: &mut S,
    ) {
        let size = products.len() / 16;
        let channels = size / places.len();
        let [down, right] = steps;
        for (tile, &place) in places.iter().enumerate() {
            for channel in (0..channels).step_by(LANES) {
                // Loops, because closures are not always inlined and are then compiled without the features.
                let mut columns = [[[0.0; LANES]; 2]; 4];
                for (s, column) in columns.iter_mut().enumerate() {
                    let mut m = [[0.0; LANES]; 4];
                    for (r, m) in m.iter_mut().enumerate() {
                        let at = (4 * r + s) * size + tile * channels + channel;
                        *m = *products[at..].first_chunk().expect("whole lanes");
                    }
                    *column = [add(add(m[0], m[1]), m[2]), sub(sub(m[1], m[2]), m[3])];
                }
                #[allow(clippy::needless_range_loop, reason = "as above")]
                for i in 0..2 {
                    let [a, b, c, d] = [columns[0][i], columns[1][i], columns[2][i], columns[3][i]];
                    sink.put(place + i * down, first + channel, &add(add(a, b), c));
                    sink.put(place + i * down + right, first + channel, &sub(sub(b, c), d));
                }
            }
        }
    }
}

#[inline(always)]
fn add(a: Lanes, b: Lanes) -> Lanes {
    std::array::from_fn(|i| a[i] + b[i])
}

#[inline(always)]
fn sub(a: Lanes, b: Lanes) -> Lanes {
    std::array::from_fn(|i| a[i] - b[i])
}
