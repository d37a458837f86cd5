//! The forward pass of a frozen network.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Convolution, Layer, Plan, Workspace};
use crate::bias::Activation;
use crate::convolution::Patches;
use crate::element::values;
use crate::max_pool::first_maximum;
use crate::product::{Sink, multiply};

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
                let at = first_maximum(plane, width, size, i, j);
                out[i * columns + j] = plane[at];
                let (row, column) = (at / width - i * size, at % width - j * size);
                places[i * columns + j] = (row * size + column) as u8;
            }
        }
    }
    places
}

impl Convolution {
    fn forward(&self, input: &[f32], residual: Option<&[f32]>, out: &mut [f32], work: &mut Workspace) {
        let pixels = self.forward.stencil.pixels();
        let rows = self.bias.len();
        self.padded.copy(input, &mut work.border);
        let patches = Patches {
            stencil: &self.forward.stencil,
            padded: &work.border,
            len: self.padded.len(),
            images: out.len() / (rows * pixels),
        };
        let mut finish = Finish {
            convolution: self,
            residual,
            out,
            rows,
            pixels,
        };
        multiply(&self.forward.weights, &patches, &mut work.panel, &mut finish);
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

impl Sink<f32> for Finish<'_> {
    fn put(&mut self, row: usize, mut column: usize, is_first: bool, is_last: bool, mut values: &[f32]) {
        let bias = self.convolution.bias[row];
        while !values.is_empty() {
            let (image, pixel) = (column / self.pixels, column % self.pixels);
            let count = values.len().min(self.pixels - pixel);
            let start = (image * self.rows + row) * self.pixels + pixel;
            let (now, later) = values.split_at(count);
            let out = &mut self.out[start..start + count];
            if is_first {
                out.iter_mut().zip(now).for_each(|(out, &value)| *out = value + bias);
            } else {
                out.iter_mut().zip(now).for_each(|(out, &value)| *out += value);
            }
            if is_last {
                if let Some(residual) = self.residual {
                    let residual = &residual[start..start + count];
                    out.iter_mut().zip(residual).for_each(|(out, &value)| *out += value);
                }
                if self.convolution.activation == Activation::Relu {
                    out.iter_mut()
                        .for_each(|out| *out = if *out <= 0.0 { 0.0 } else { *out });
                }
            }
            values = later;
            column += count;
        }
    }
}
