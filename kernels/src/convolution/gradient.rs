//! The two gradients of a convolution.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape};
use rayon::prelude::*;

use super::image_columns::{gather, scatter_add};
use super::{Geometry, convolve};
use crate::element::{Element, dispatch, values};
use crate::matmul::{Destination, Matrix, multiply};

/// From the gradient of the output and the weights to the gradient of the images.
pub(super) struct ToImages(pub(super) Geometry);

impl CustomOp2 for ToImages {
    fn name(&self) -> &'static str {
        "conv2d-gradient-to-images"
    }

    fn cpu_fwd(&self, g: &CpuStorage, lg: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(g, self.name(), to_images(&self.0, g, lg, w, lw))
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
    let out = match geometry.backward() {
        Some(backward) => convolve(&backward, gradient, &turned(geometry, weights)),
        None => scattered(geometry, gradient, weights),
    };
    Ok((T::to_cpu_storage_owned(out), geometry.input_shape().into()))
}

/// `[K, C, R, S]` to `[C, K, R, S]`, every kernel turned by 180°.
fn turned<T: Element>(g: &Geometry, weights: &[T]) -> Vec<T> {
    let area = g.kernel_pixels();
    let mut turned = Vec::with_capacity(weights.len());
    for c in 0..g.inputs {
        for k in 0..g.outputs {
            let kernel = &weights[(k * g.inputs + c) * area..][..area];
            turned.extend(kernel.iter().rev());
        }
    }
    turned
}

/// Any stride and padding: gradients of the image columns, added back where they came from.
fn scattered<T: Element>(g: &Geometry, gradient: &[T], weights: &[T]) -> Vec<T> {
    let mut out = vec![T::zero(); g.batch * g.input_len()];
    if out.is_empty() {
        return out;
    }
    let weights = Matrix::new(weights, g.outputs, g.patch()).transposed();
    out.par_chunks_mut(g.input_len())
        .zip(gradient.par_chunks(g.output_len()))
        .for_each_init(
            || vec![T::zero(); g.patch() * g.out_pixels()],
            |columns, (out, gradient)| {
                let gradient = Matrix::new(gradient, g.outputs, g.out_pixels());
                multiply(weights, gradient, columns, g.out_pixels(), Destination::Overwrite);
                scatter_add(g, columns, 0..g.out_height, out);
            },
        );
    out
}

/// How the sum over images and pixels is cut into tasks: by shape alone. A task owns some input
/// channels and adds up one run of images; the runs are then added in order.
struct Cut {
    channels: usize,
    images: usize,
}

impl Cut {
    fn new(g: &Geometry) -> Self {
        const COLUMNS: usize = 288;
        const TASKS: usize = 16;
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
    let parts: Vec<Vec<T>> = tasks
        .par_iter()
        .map(|&(channel, image)| {
            let slice = g.with_inputs(cut.channels.min(g.inputs - channel));
            let range = image..g.batch.min(image + cut.images);
            let images = &images[range.start * g.input_len()..range.end * g.input_len()];
            let gradient = &gradient[range.start * g.output_len()..range.end * g.output_len()];
            part(&slice, g, channel, images, gradient)
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

/// The gradient `[K, slice·R·S]` for some input channels, summed over a run of images.
fn part<T: Element>(slice: &Geometry, whole: &Geometry, channel: usize, images: &[T], gradient: &[T]) -> Vec<T> {
    let mut sum = vec![T::zero(); slice.outputs * slice.patch()];
    let rows = slice.tile_rows();
    let mut columns = vec![T::zero(); slice.patch() * rows * slice.out_width];
    let start = channel * whole.height * whole.width;
    let images = images.chunks(whole.input_len());
    for (image, gradient) in images.zip(gradient.chunks(whole.output_len())) {
        let image = &image[start..start + slice.input_len()];
        for first in (0..slice.out_height).step_by(rows) {
            let rows = first..slice.out_height.min(first + rows);
            let pixels = rows.len() * slice.out_width;
            let columns = &mut columns[..slice.patch() * pixels];
            gather(slice, image, rows, columns);
            let columns = Matrix::new(columns, slice.patch(), pixels).transposed();
            let gradient = Matrix::strided(
                &gradient[first * slice.out_width..],
                slice.outputs,
                pixels,
                slice.out_pixels(),
            );
            multiply(gradient, columns, &mut sum, slice.patch(), Destination::Add);
        }
    }
    sum
}
