//! A correlation over frames: what a convolution and the gradient to its images have in common.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::element::Element;
use crate::frame::Frame;
use crate::product::{Packed, Tile, multiply};
use crate::wide::wide;

/// A correlation: every one of its pixels is a sum over taps into the frame.
pub(crate) struct Part<T> {
    grid: Grid,
    weights: Weights<T>,
}

/// The pixels of a part: (i, j) reads from `origin + i · row_step + j · step` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    pub(crate) origin: usize,
    pub(crate) row_step: usize,
    pub(crate) step: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Where the pixels are in the result.
    pub(crate) place: Place,
    /// Of how many pixels side by side a sum holds the channels; 1 unless set otherwise.
    pub(crate) beside: usize,
}

/// Pixel (i, j) of a part is pixel (i·stride + top, j·stride + left) of the result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) stride: usize,
}

enum Weights<T> {
    /// As the right operand of a product.
    Packed(Packed<T>),
    /// For so few results that a tile would be mostly empty: a row of the whole depth for each.
    Few {
        taps: Vec<usize>,
        run: usize,
        rows: Vec<Vec<T>>,
    },
}

/// The most results that are computed one by one.
pub(super) const FEW: usize = 4;

impl<T: Element> Part<T> {
    /// With weights `value(depth, output)` for depth `tap · run + k`.
    pub(crate) fn new(
        grid: Grid,
        taps: &[usize],
        run: usize,
        outputs: usize,
        value: impl Fn(usize, usize) -> T,
    ) -> Self {
        let weights = if outputs <= FEW && run >= T::kernel().lanes {
            let depth = taps.len() * run;
            Weights::Few {
                taps: taps.to_vec(),
                run,
                rows: (0..outputs)
                    .map(|output| (0..depth).map(|k| value(k, output)).collect())
                    .collect(),
            }
        } else {
            Weights::Packed(Packed::new(taps, run, outputs, value))
        };
        Self { grid, weights }
    }

    fn pixels(&self) -> usize {
        self.grid.height * self.grid.width
    }

    /// How many pixels of the result it computes.
    pub(crate) fn covered(&self) -> usize {
        self.pixels() * self.grid.beside
    }

    /// Computes all pixels of `images` frames of `frame_len` numbers; the result is in frames `out`.
    pub(crate) fn run(&self, values: &[T], images: usize, frame_len: usize, out: &Frame, sink: &mut impl Sink<T>) {
        // As many rows of the product as stay in the second cache while all panels go past.
        const NUMBERS: usize = 1 << 15;
        let grid = &self.grid;
        let chunk = (NUMBERS / grid.step.max(1)).clamp(4, 80) * 12;
        let pixels = images * self.pixels();
        let (mut starts, mut places) = (Vec::with_capacity(chunk), Vec::with_capacity(chunk));
        for first in (0..pixels).step_by(chunk) {
            starts.clear();
            places.clear();
            for pixel in first..pixels.min(first + chunk) {
                let (image, pixel) = (pixel / self.pixels(), pixel % self.pixels());
                let (i, j) = (pixel / grid.width, pixel % grid.width);
                starts.push(image * frame_len + grid.origin + i * grid.row_step + j * grid.step);
                let Place { top, left, stride } = grid.place;
                places.push(image * out.len() + out.at(i * stride + top, j * stride + left));
            }
            match &self.weights {
                Weights::Packed(weights) => {
                    multiply(values, &starts, weights, |tile| {
                        put_tile(tile, &places[tile.rows.clone()], sink)
                    });
                }
                Weights::Few { taps, run, rows } => {
                    let mut sums = [T::zero(); FEW];
                    for (&start, &place) in starts.iter().zip(&places) {
                        for (sum, row) in sums.iter_mut().zip(rows) {
                            *sum = (T::kernel().dot)(&values[start..], taps, *run, row);
                        }
                        sink.put(place, 0, &sums[..rows.len()]);
                    }
                }
            }
        }
    }
}

/// Where sums go.
pub(crate) trait Sink<T> {
    /// Takes the sums of output channels, from `channel` on, of the pixel that begins at `start` of the
    /// result's frames. To be inlined always, so that it is compiled for wide registers.
    fn put(&mut self, start: usize, channel: usize, sums: &[T]);
}

/// Sums that are the result.
pub(crate) struct Plain<'a, T>(pub(crate) &'a mut [T]);

impl<T: Copy> Sink<T> for Plain<'_, T> {
    #[inline(always)]
    fn put(&mut self, start: usize, channel: usize, sums: &[T]) {
        self.0[start + channel..start + channel + sums.len()].copy_from_slice(sums);
    }
}

wide! {
    /// Hands on the rows of a tile, whose pixels begin at `places`.
    fn put_tile[T: Element, S: Sink<T>](tile: &Tile<'_, T>, places: &[usize], sink: &mut S) {
        for (row, &place) in tile.rows.clone().zip(places) {
            sink.put(place, tile.column, tile.row(row));
        }
    }
}

/// All parts over a batch of images `[N, C, H, W]` without border: `[N, outputs, H′, W′]`, `out` being one
/// image of the result. `finish` gets whole pixels, channels side by side.
pub(crate) fn correlate<T: Element>(
    input: &Frame,
    images: &[T],
    parts: &[Part<T>],
    out: [usize; 3],
    finish: impl Fn(&mut [T]) + Sync,
) -> Vec<T> {
    let out = Frame::bare(out);
    in_groups(input, images, &out, |frames, count, results| {
        for part in parts {
            part.run(frames, count, input.len(), &out, &mut Plain(results));
        }
        finish(results);
    })
}

/// Calls `run(frames, images, results)` for groups of images laid out in frames, and puts together what
/// it leaves in the results' frames.
pub(crate) fn in_groups<T: Element>(
    input: &Frame,
    images: &[T],
    out: &Frame,
    run: impl Fn(&[T], usize, &mut [T]) + Sync,
) -> Vec<T> {
    let batch = images.len() / input.bare_len();
    let mut all = vec![T::zero(); batch * out.bare_len()];
    if all.is_empty() {
        return all;
    }
    let group = group(batch, out.height * out.width);
    all.par_chunks_mut(group * out.bare_len())
        .zip(images.par_chunks(group * input.bare_len()))
        .for_each_init(
            || (Vec::new(), Vec::new()),
            |(frames, results), (all, images)| {
                input.gather(images, frames);
                let count = images.len() / input.bare_len();
                results.clear();
                results.resize(count * out.len(), T::zero());
                run(frames, count, results);
                out.scatter(results, all);
            },
        );
    all
}

thread_local! {
    /// Room for frames that outlives a task.
    static FRAMES: RefCell<Vec<f32>> = RefCell::default();
}

/// As [`in_groups`], for images and results `[N, H, W, C]`, whose channels lie side by side already. `run`
/// gets the place of the group's results among all besides.
pub(crate) fn over_pixels(
    input: &Frame,
    images: &[f32],
    out: &Frame,
    all: &mut [f32],
    run: impl Fn(&[f32], usize, &mut [f32], usize) + Sync,
) {
    let batch = images.len() / input.bare_len();
    if all.is_empty() {
        return;
    }
    let group = group(batch, out.height * out.width);
    all.par_chunks_mut(group * out.bare_len())
        .zip(images.par_chunks(group * input.bare_len()))
        .enumerate()
        .for_each(|(index, (results, images))| {
            let count = images.len() / input.bare_len();
            let place = index * group * out.bare_len();
            FRAMES.with_borrow_mut(|frames| run(input.surround(images, frames), count, results, place));
        });
}

/// Images per task: enough pixels to be worth a pass over the weights, but work for every thread. The
/// result does not depend on it.
fn group(batch: usize, pixels: usize) -> usize {
    const PIXELS: usize = 768;
    let share = batch.div_ceil(rayon::current_num_threads());
    PIXELS.div_ceil(pixels.max(1)).clamp(1, share)
}
