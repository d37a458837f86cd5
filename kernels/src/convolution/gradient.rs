//! The two gradients of a convolution.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape};
use rayon::prelude::*;

use super::forward::correlate;
use super::stencil::{Patches, Stencil};
use super::{Geometry, Winograd};
use crate::element::{Element, dispatch, values};
use crate::product::{Packed, Panels, Sink, Tile, multiply, store};

/// From the gradient of the output and the weights to the gradient of the images.
pub(super) struct ToImages(pub(super) Geometry);

impl CustomOp2 for ToImages {
    fn name(&self) -> &'static str {
        "conv2d-gradient-to-images"
    }

    fn cpu_fwd(&self, g: &CpuStorage, lg: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let geometry = &self.0;
        if let (CpuStorage::F32(_), CpuStorage::F32(_)) = (g, w)
            && let Some(winograd) = Winograd::backward(geometry, values(w, lw)?)
        {
            let padded = geometry.padded_gradient();
            let out = winograd.batch(&padded, values(g, lg)?, [geometry.height, geometry.width]);
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
    let (padded, parts) = geometry.backward(weights);
    let plane = geometry.height * geometry.width;
    let out = match parts.is_empty() {
        // No output pixel sees the image: all of them lie in the padding.
        true => vec![T::zero(); geometry.batch * geometry.input_len()],
        false => correlate(&padded, gradient, &parts, plane),
    };
    Ok((T::to_cpu_storage_owned(out), geometry.input_shape().into()))
}

/// How the sum over images and pixels is cut into tasks: by shape alone. A task owns some input
/// channels and adds up one run of images; the runs are then added in order.
struct Cut {
    channels: usize,
    images: usize,
}

impl Cut {
    fn new(g: &Geometry) -> Self {
        const COLUMNS: usize = 1152;
        const TASKS: usize = 8;
        let channels = COLUMNS.div_ceil(g.kernel_pixels()).clamp(1, g.inputs);
        let slices = g.inputs.div_ceil(channels);
        let runs = TASKS.div_ceil(slices).clamp(1, g.batch.max(1));
        Self {
            channels,
            images: g.batch.div_ceil(runs).max(1),
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
    let g = geometry;
    let cut = Cut::new(g);
    let tasks: Vec<(usize, usize)> = (0..g.inputs)
        .step_by(cut.channels)
        .flat_map(|channel| (0..g.batch).step_by(cut.images).map(move |image| (channel, image)))
        .collect();
    let stencil = g.stencil();
    let parts: Vec<Vec<T>> = tasks
        .par_iter()
        .map(|&(channel, image)| {
            let channels = channel..g.inputs.min(channel + cut.channels);
            let range = image..g.batch.min(image + cut.images);
            let images = &images[range.start * g.input_len()..range.end * g.input_len()];
            let gradient = &gradient[range.start * g.output_len()..range.end * g.output_len()];
            part(g, &stencil, channels, images, gradient)
        })
        .collect();
    let mut out = vec![T::zero(); g.outputs * g.patch()];
    for (&(channel, _), part) in tasks.iter().zip(&parts) {
        let width = part.len() / g.outputs;
        let rows = out.chunks_mut(g.patch()).zip(part.chunks(width));
        for (out, part) in rows {
            let out = &mut out[channel * g.kernel_pixels()..][..width];
            for (out, part) in out.iter_mut().zip(part) {
                *out += *part;
            }
        }
    }
    Ok((T::to_cpu_storage_owned(out), geometry.weight_shape().into()))
}

/// The gradient `[K, channels·R·S]` for some input channels, summed over a run of images.
fn part<T: Element>(g: &Geometry, stencil: &Stencil, channels: Range<usize>, images: &[T], gradient: &[T]) -> Vec<T> {
    let columns = channels.len() * g.kernel_pixels();
    let offsets = &stencil.offsets[channels.start * g.kernel_pixels()..][..columns];
    let mut sum = vec![T::zero(); g.outputs * columns];
    let (padded, pixels) = (g.padded_input(), g.out_pixels());
    // Small planes: several images at once, so that a product is deep enough. By shape alone.
    let group = 64usize.div_ceil(pixels);
    let (mut border, mut scratch, mut packed) = (Vec::new(), Vec::new(), Packed::empty());
    let groups = images.chunks(group * g.input_len());
    for (index, (images, gradient)) in groups.zip(gradient.chunks(group * g.output_len())).enumerate() {
        padded.copy(images, &mut border);
        let count = images.len() / g.input_len();
        let row = |row: usize, depth: usize| {
            let (image, pixel) = (depth / pixels, depth % pixels);
            let start = (image * g.outputs + row) * pixels + pixel;
            &gradient[start..start + pixels - pixel]
        };
        packed.fill(g.outputs, count * pixels, row);
        let patches = Patches {
            stencil,
            padded: &border,
            len: padded.len(),
            images: count,
        };
        let right = Transposed { patches, offsets };
        let mut sink = Sum {
            values: &mut sum,
            columns,
            overwrite: index == 0,
        };
        multiply(&packed, &right, &mut scratch, &mut sink);
    }
    sum
}

/// Patches with depth and columns exchanged: a column for every offset, the pixels as depth.
struct Transposed<'a, T> {
    patches: Patches<'a, T>,
    offsets: &'a [usize],
}

impl<T: Element> Panels<T> for Transposed<'_, T> {
    fn columns(&self) -> usize {
        self.offsets.len()
    }

    fn fill(&self, depth: Range<usize>, first: usize, width: usize, panel: &mut [T]) {
        let offsets = &self.offsets[first..self.offsets.len().min(first + width)];
        let step = self.patches.stencil.step;
        self.patches.for_runs(depth, |at, count, corner| {
            let panel = &mut panel[at * width..(at + count) * width];
            for (column, offset) in offsets.iter().enumerate() {
                let from = &self.patches.padded[offset + corner..];
                let out = panel[column..].iter_mut().step_by(width);
                if step == 1 {
                    for (out, value) in out.zip(&from[..count]) {
                        *out = *value;
                    }
                } else {
                    for (out, value) in out.zip(from.iter().step_by(step)) {
                        *out = *value;
                    }
                }
            }
        });
    }
}

/// A running sum `[rows, columns]`.
struct Sum<'a, T> {
    values: &'a mut [T],
    columns: usize,
    overwrite: bool,
}

impl<T: Element> Sink<T> for Sum<'_, T> {
    fn put(&mut self, tile: &Tile<'_, T>) {
        for row in 0..tile.rows {
            let out = &mut self.values[(tile.row + row) * self.columns + tile.column..][..tile.columns];
            store(out, tile.row(row, 0, tile.columns), tile.is_first && self.overwrite);
        }
    }
}
