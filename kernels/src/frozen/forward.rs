//! The forward pass of a frozen network.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Convolution, Layer, Method, Plan, Workspace};
use crate::bias::Activation;
use crate::convolution::Patches;
use crate::element::values;
use crate::max_pool::first_maximum;
use crate::product::{Sink, Tile, multiply};

/// One forward pass, and what its gradient needs of it.
pub(super) struct Run {
    plan: Arc<Plan>,
    /// Whether a gradient may be asked for.
    keep: bool,
    kept: Mutex<Kept>,
}

/// What the gradient needs of a forward pass.
#[derive(Default)]
pub(super) struct Kept {
    /// Images per group.
    pub(super) group: usize,
    /// For every group, for every step: the signs after a ReLU (0 or 1), or the place of a maximum in
    /// its window.
    pub(super) marks: Vec<Vec<Vec<u8>>>,
}

impl Run {
    pub(super) fn new(plan: Arc<Plan>, keep: bool) -> Self {
        Self {
            plan,
            keep,
            kept: Mutex::default(),
        }
    }
}

impl CustomOp1 for Run {
    fn name(&self) -> &'static str {
        "frozen-network"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let images = values::<f32>(storage, layout)?;
        let batch = layout.dims()[0];
        let plan = &*self.plan;
        let classes = len(plan.shapes[plan.shapes.len() - 1]);
        let mut logits = vec![0.0; batch * classes];
        let group = plan.group.min(batch.div_ceil(rayon::current_num_threads())).max(1);
        let image_len = len(plan.shapes[0]);
        let marks = logits
            .par_chunks_mut(group * classes)
            .zip(images.par_chunks(group * image_len))
            .map(|(logits, images)| plan.with_workspace(|work| plan.forward(images, logits, self.keep, work)))
            .collect();
        *self.kept.lock().expect("no forward pass panicked") = Kept { group, marks };
        Ok((CpuStorage::F32(logits), (batch, classes).into()))
    }

    fn bwd(&self, images: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let kept = self.kept.lock().expect("no forward pass panicked");
        let gradient = gradient.contiguous()?;
        self.plan.gradient(&kept, images, &gradient).map(Some)
    }
}

/// Numbers in a value of one image.
pub(super) fn len(shape: [usize; 3]) -> usize {
    shape.iter().product()
}

impl Plan {
    /// Runs with a workspace that nobody else uses.
    pub(super) fn with_workspace<R>(&self, run: impl FnOnce(&mut Workspace) -> R) -> R {
        let free = || self.workspaces.lock().expect("no pass panicked");
        let taken = free().pop();
        let mut workspace = taken.unwrap_or_default();
        let result = run(&mut workspace);
        free().push(workspace);
        result
    }

    /// The last step that reads each value.
    fn last_uses(&self) -> Vec<usize> {
        let mut last = vec![usize::MAX; self.shapes.len()];
        for (index, step) in self.steps.iter().enumerate() {
            last[step.input] = index;
            if let Layer::Convolution(convolution) = &step.layer
                && let Some(residual) = convolution.residual
            {
                last[residual] = index;
            }
        }
        last
    }

    /// The logits of one group of images, and what the gradient needs.
    fn forward(&self, images: &[f32], logits: &mut [f32], keep: bool, work: &mut Workspace) -> Vec<Vec<u8>> {
        let count = images.len() / len(self.shapes[0]);
        let last_uses = self.last_uses();
        let mut buffers: Vec<Option<Vec<f32>>> = vec![None; self.shapes.len()];
        let mut marks = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            let output = index + 1;
            let mut out = work.take(count * len(self.shapes[output]));
            let value = |id: usize| match id {
                0 => images,
                _ => buffers[id].as_deref().expect("a value is computed before its use"),
            };
            let input = value(step.input);
            let mark = match &step.layer {
                Layer::Convolution(convolution) => {
                    let residual = convolution.residual.map(value);
                    convolution.forward(input, residual, &mut out, work);
                    match convolution.activation {
                        Activation::Relu if keep => signs(&out),
                        _ => Vec::new(),
                    }
                }
                Layer::ScaleShiftRelu { scale, shift } => {
                    let area = self.shapes[output][1] * self.shapes[output][2];
                    let planes = out.chunks_exact_mut(area).zip(input.chunks_exact(area));
                    let channels = scale.iter().zip(shift).cycle();
                    for ((out, x), (&scale, &shift)) in planes.zip(channels) {
                        for (out, &x) in out.iter_mut().zip(x) {
                            let y = x * scale + shift;
                            *out = if y <= 0.0 { 0.0 } else { y };
                        }
                    }
                    if keep { signs(&out) } else { Vec::new() }
                }
                Layer::MaxPool(size) => max_pool(input, *size, self.shapes[step.input], &mut out),
                Layer::MeanPerChannel => {
                    let [_, height, width] = self.shapes[step.input];
                    let scale = 1.0 / (height * width) as f32;
                    for (out, plane) in out.iter_mut().zip(input.chunks_exact(height * width)) {
                        *out = plane.iter().sum::<f32>() * scale;
                    }
                    Vec::new()
                }
                Layer::Flatten => {
                    out.copy_from_slice(input);
                    Vec::new()
                }
            };
            marks.push(mark);
            buffers[output] = Some(out);
            for (buffer, &last) in buffers.iter_mut().zip(&last_uses) {
                if last == index
                    && let Some(buffer) = buffer.take()
                {
                    work.give(buffer);
                }
            }
        }
        let last = buffers.pop().flatten().expect("a network has a layer");
        logits.copy_from_slice(&last);
        work.give(last);
        marks
    }
}

/// 1 where a number is positive (or not a number), else 0.
fn signs(values: &[f32]) -> Vec<u8> {
    values.iter().map(|&value| u8::from(value != 0.0)).collect()
}

/// The maximum of window (i, j), and the place of the first one in the window, row by row.
#[inline]
fn window_maximum(plane: &[f32], width: usize, size: usize, i: usize, j: usize) -> (f32, u8) {
    if size != 2 {
        let at = first_maximum(plane, width, size, i, j);
        let (row, column) = (at / width - i * size, at % width - j * size);
        return (plane[at], (row * size + column) as u8);
    }
    let corner = 2 * i * width + 2 * j;
    let (top, bottom) = (&plane[corner..corner + 2], &plane[corner + width..corner + width + 2]);
    let (mut value, mut place) = (top[0], 0);
    for (next, at) in [(top[1], 1), (bottom[0], 2), (bottom[1], 3)] {
        let larger = next > value || (next.is_nan() && !value.is_nan());
        value = if larger { next } else { value };
        place = if larger { at } else { place };
    }
    (value, place)
}

/// The maxima of all windows; returns their places.
fn max_pool(input: &[f32], size: usize, [_, height, width]: [usize; 3], out: &mut [f32]) -> Vec<u8> {
    let (rows, columns) = (height / size, width / size);
    let mut places = vec![0; out.len()];
    let planes = out
        .chunks_exact_mut(rows * columns)
        .zip(input.chunks_exact(height * width));
    for ((out, plane), places) in planes.zip(places.chunks_exact_mut(rows * columns)) {
        for i in 0..rows {
            for j in 0..columns {
                let (value, place) = window_maximum(plane, width, size, i, j);
                out[i * columns + j] = value;
                places[i * columns + j] = place;
            }
        }
    }
    places
}

impl Convolution {
    fn forward(&self, input: &[f32], residual: Option<&[f32]>, out: &mut [f32], work: &mut Workspace) {
        let [height, width] = self.out;
        let (rows, pixels) = (self.bias.len(), height * width);
        let images = out.len() / (rows * pixels);
        let mut border = std::mem::take(&mut work.border);
        self.padded.copy(input, &mut border);
        let mut finish = Finish {
            convolution: self,
            residual,
            out,
            rows,
            pixels,
        };
        match &self.forward {
            Method::Direct(parts) => {
                for part in parts {
                    let patches = Patches {
                        stencil: &part.stencil,
                        padded: &border,
                        len: self.padded.len(),
                        images,
                    };
                    multiply(&part.weights, &patches, &mut work.panel, &mut finish);
                }
            }
            Method::Winograd(winograd) => {
                winograd.run(
                    &border,
                    images,
                    self.out,
                    &mut work.winograd,
                    |image, channel, row, column, values| {
                        let start = (image * rows + channel) * pixels + row * width + column;
                        finish.put_row(channel, start, values);
                    },
                );
            }
        }
        work.border = border;
    }
}

/// Adds bias and residual to the products and applies the ReLU.
struct Finish<'a> {
    convolution: &'a Convolution,
    residual: Option<&'a [f32]>,
    out: &'a mut [f32],
    rows: usize,
    pixels: usize,
}

impl Finish<'_> {
    /// Takes finished sums of a channel, whose first one lies at `start` of the result.
    #[inline(always)]
    fn put_row(&mut self, channel: usize, start: usize, sums: &[f32]) {
        let bias = self.convolution.bias[channel];
        let out = &mut self.out[start..start + sums.len()];
        out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = sum + bias);
        self.complete(start, sums.len());
    }

    /// Adds the residual to a run of sums and applies the ReLU.
    #[inline(always)]
    fn complete(&mut self, start: usize, count: usize) {
        let out = &mut self.out[start..start + count];
        if let Some(residual) = self.residual {
            let residual = &residual[start..start + count];
            out.iter_mut().zip(residual).for_each(|(out, &value)| *out += value);
        }
        if self.convolution.activation == Activation::Relu {
            out.iter_mut()
                .for_each(|out| *out = if *out <= 0.0 { 0.0 } else { *out });
        }
    }
}

impl Sink<f32> for Finish<'_> {
    fn put(&mut self, tile: &Tile<'_, f32>) {
        let mut done = 0;
        while done < tile.columns {
            let column = tile.column + done;
            let (image, pixel) = (column / self.pixels, column % self.pixels);
            let count = (tile.columns - done).min(self.pixels - pixel);
            let start = (image * self.rows + tile.row) * self.pixels + pixel;
            for row in 0..tile.rows {
                let bias = self.convolution.bias[tile.row + row];
                let range = start + row * self.pixels..start + row * self.pixels + count;
                let out = &mut self.out[range.clone()];
                let now = out.iter_mut().zip(tile.row(row, done, count));
                match tile.is_first {
                    true => now.for_each(|(out, &value)| *out = value + bias),
                    false => now.for_each(|(out, &value)| *out += value),
                }
                if tile.is_last {
                    self.complete(range.start, count);
                }
            }
            done += count;
        }
    }
}
