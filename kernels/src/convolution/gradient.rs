//! The two gradients of a convolution.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape};
use rayon::prelude::*;

use super::part::correlate;
use super::{Geometry, Winograd};
use crate::element::{Element, dispatch, values};
use crate::frame::Frame;
use crate::product::{Room, SLACK, multiply_columns};
use crate::tile::Columns;

/// From the gradient of the output and the weights to the gradient of the images.
pub(super) struct ToImages(pub(super) Geometry);

impl CustomOp2 for ToImages {
    fn name(&self) -> &'static str {
        "conv2d-gradient-to-images"
    }

    fn cpu_fwd(&self, g: &CpuStorage, lg: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let geometry = &self.0;
        let frame = geometry.gradient_frame();
        if let (CpuStorage::F32(_), CpuStorage::F32(_)) = (g, w)
            && let Some(winograd) = Winograd::backward(geometry, values(w, lw)?, &frame)
        {
            let out = winograd.batch(&frame, values(g, lg)?, |_| {});
            return Ok((CpuStorage::F32(out), geometry.input_shape().into()));
        }
        dispatch!(g, self.name(), to_images(geometry, g, lg, w, lw))
    }
}

/// From the images and the gradient of the output to the gradient of the weights.
pub(super) struct ToWeights(pub(super) Geometry);

impl CustomOp2 for ToWeights {
    fn name(&self) -> &'static str {
        "conv2d-gradient-to-weights"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, g: &CpuStorage, lg: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(x, self.name(), to_weights(&self.0, x, lx, g, lg))
    }
}

fn to_images<T: Element>(
    geometry: &Geometry,
    g: &CpuStorage,
    lg: &Layout,
    w: &CpuStorage,
    lw: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (gradient, weights) = (values::<T>(g, lg)?, values::<T>(w, lw)?);
    // Without parts, no output pixel sees the image: all of them are in the padding.
    let frame = geometry.gradient_frame();
    let parts = geometry.backward(weights, &frame);
    let image = [geometry.inputs, geometry.height, geometry.width];
    let out = correlate(&frame, gradient, &parts, image, |_| {});
    Ok((T::to_cpu_storage_owned(out), geometry.input_shape().into()))
}

/// How the gradient of the weights is cut into tasks: by shape alone. A task owns some output channels
/// and adds up one run of images; the runs are then added in order.
struct Cut {
    outputs: usize,
    images: usize,
}

impl Cut {
    fn new(g: &Geometry, batch: usize) -> Self {
        const NUMBERS: usize = 1 << 19;
        const TASKS: usize = 16;
        let outputs = (NUMBERS / g.patch()).next_multiple_of(12).clamp(12, g.outputs.max(12));
        let slices = g.outputs.div_ceil(outputs);
        let runs = TASKS.div_ceil(slices).clamp(1, batch.max(1));
        Self {
            outputs,
            images: batch.div_ceil(runs).max(1),
        }
    }
}

fn to_weights<T: Element>(
    geometry: &Geometry,
    x: &CpuStorage,
    lx: &Layout,
    g: &CpuStorage,
    lg: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (images, gradient) = (values::<T>(x, lx)?, values::<T>(g, lg)?);
    let mut out = vec![T::zero(); geometry.outputs * geometry.patch()];
    weight_gradient(geometry, geometry.batch, &Planes { images, gradient }, &mut out);
    Ok((T::to_cpu_storage_owned(out), geometry.weight_shape().into()))
}

/// Images and the gradient of their convolution.
pub(crate) trait Operands<T>: Sync {
    /// The frames of some images.
    fn frames<'a>(&'a self, g: &Geometry, images: Range<usize>, room: &'a mut Vec<T>) -> &'a [T];

    /// The gradient of their results for some output channels, side by side, and from a pixel to the next.
    fn gradient<'a>(
        &'a self,
        g: &Geometry,
        images: Range<usize>,
        outputs: Range<usize>,
        room: &'a mut Vec<T>,
    ) -> (&'a [T], usize);
}

/// `[N, C, H, W]`.
struct Planes<'a, T> {
    images: &'a [T],
    gradient: &'a [T],
}

impl<T: Element> Operands<T> for Planes<'_, T> {
    fn frames<'a>(&'a self, g: &Geometry, images: Range<usize>, room: &'a mut Vec<T>) -> &'a [T] {
        let images = &self.images[images.start * g.input_len()..images.end * g.input_len()];
        g.input_frame().gather(images, room);
        room
    }

    fn gradient<'a>(
        &'a self,
        g: &Geometry,
        images: Range<usize>,
        outputs: Range<usize>,
        room: &'a mut Vec<T>,
    ) -> (&'a [T], usize) {
        let gradient = &self.gradient[images.start * g.output_len()..images.end * g.output_len()];
        let frame = Frame::bare([outputs.len(), g.out_height, g.out_width]);
        frame.gather_channels(gradient, g.outputs, outputs.clone(), room);
        (room, outputs.len())
    }
}

/// `[N, H, W, C]`: channels side by side.
pub(crate) struct Pixels<'a> {
    pub(crate) images: &'a [f32],
    pub(crate) gradient: &'a [f32],
}

impl Operands<f32> for Pixels<'_> {
    fn frames<'a>(&'a self, g: &Geometry, images: Range<usize>, room: &'a mut Vec<f32>) -> &'a [f32] {
        let images = &self.images[images.start * g.input_len()..images.end * g.input_len()];
        let frame = g.input_frame();
        if frame.len() == frame.bare_len() {
            // Copied anyway, because of the numbers that the last tile may read past the end.
            room.clear();
            room.extend_from_slice(images);
            room.resize(images.len() + SLACK, 0.0);
            return room;
        }
        frame.surround(images, room)
    }

    fn gradient<'a>(
        &'a self,
        g: &Geometry,
        images: Range<usize>,
        outputs: Range<usize>,
        _: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize) {
        let gradient = &self.gradient[images.start * g.output_len()..images.end * g.output_len()];
        (&gradient[outputs.start..], g.outputs)
    }
}

/// The gradient of the weights `[K, C, R, S]`, added to `out`.
pub(crate) fn weight_gradient<T: Element>(g: &Geometry, batch: usize, operands: &impl Operands<T>, out: &mut [T]) {
    let cut = Cut::new(g, batch);
    let starts: Vec<usize> = (0..batch).step_by(cut.images).collect();
    let slices: Vec<Range<usize>> = (0..g.outputs)
        .step_by(cut.outputs)
        .map(|first| first..g.outputs.min(first + cut.outputs))
        .collect();
    let tasks: Vec<(&Range<usize>, usize)> = slices
        .iter()
        .flat_map(|slice| starts.iter().map(move |&start| (slice, start)))
        .collect();
    let parts: Vec<Vec<T>> = tasks
        .par_iter()
        .map(|&(outputs, start)| part(g, outputs.clone(), start..batch.min(start + cut.images), operands))
        .collect();
    // Every number of the result belongs to one slice, so slices need not wait for each other.
    out.par_chunks_mut(cut.outputs * g.patch())
        .zip(parts.par_chunks(starts.len().max(1)))
        .for_each(|(out, parts)| {
            for (k, out) in out.chunks_exact_mut(g.patch()).enumerate() {
                for part in parts {
                    // From kernel row, kernel column, channel to channel, kernel row, kernel column.
                    let row = &part[k * g.patch()..][..g.patch()];
                    for (place, channels) in row.chunks_exact(g.inputs).enumerate() {
                        for (c, value) in channels.iter().enumerate() {
                            out[c * g.kernel_pixels() + place] += *value;
                        }
                    }
                }
            }
        });
}

/// The gradient `[outputs, R, S, C]` for some output channels, summed over a run of images.
fn part<T: Element>(g: &Geometry, outputs: Range<usize>, images: Range<usize>, operands: &impl Operands<T>) -> Vec<T> {
    // The depth of a product, in pixels: deep enough to be worth adding its result to the sum, short
    // enough that both operands stay in the second cache. By shape alone.
    const DEPTH: usize = 256;
    let input = g.input_frame();
    let mut sum = vec![T::zero(); outputs.len() * g.patch()];
    let (mut frames_room, mut gradient_room, mut room) = (Vec::new(), Vec::new(), Room::default());
    let group = DEPTH.div_ceil(g.out_pixels());
    let rows_at_once = (DEPTH / g.out_width).max(1);
    let columns = g.kernel_width * g.inputs;
    for start in images.clone().step_by(group) {
        let images = start..images.end.min(start + group);
        let frames = operands.frames(g, images.clone(), &mut frames_room);
        let (gradient, step) = operands.gradient(g, images.clone(), outputs.clone(), &mut gradient_room);
        let rows: Vec<(usize, usize)> = (0..images.len())
            .flat_map(|image| {
                (0..g.out_height).map(move |i| {
                    let left = (image * g.out_height + i) * g.out_width * step;
                    (left, image * input.len() + i * g.stride * input.row_step())
                })
            })
            .collect();
        for rows in rows.chunks(rows_at_once) {
            for r in 0..g.kernel_height {
                let operands = Columns {
                    left: gradient,
                    right: &frames[r * input.row_step()..],
                    starts: rows,
                    count: g.out_width,
                    left_step: step,
                    right_step: g.stride * g.inputs,
                };
                multiply_columns(&operands, outputs.len(), columns, &mut room, |tile| {
                    for row in tile.rows.clone() {
                        let start = row * g.patch() + r * columns + tile.column;
                        for (out, value) in sum[start..start + tile.columns].iter_mut().zip(tile.row(row)) {
                            *out += *value;
                        }
                    }
                });
            }
        }
    }
    sum
}
