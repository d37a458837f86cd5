//! The forward pass of a frozen network.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Convolution, Layer, Plan, Workspace};
use crate::bias::Activation;
use crate::element::values;
use crate::frame::Frame;
use crate::wide::wide;

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
    /// For every group, for every step.
    pub(super) marks: Vec<Vec<Marks>>,
}

/// After a ReLU, for every number of the result's frames, 1 where it is not zero. After a maximum, its
/// place in the window, without border. Else empty.
pub(super) type Marks = Vec<u8>;

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
        let classes = plan.frames[plan.frames.len() - 1].bare_len();
        let mut logits = vec![0.0; batch * classes];
        let group = plan.group.min(batch.div_ceil(rayon::current_num_threads())).max(1);
        let image_len = plan.frames[0].bare_len();
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
        let mut last = vec![usize::MAX; self.frames.len()];
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
    fn forward(&self, images: &[f32], logits: &mut [f32], keep: bool, work: &mut Workspace) -> Vec<Marks> {
        let count = images.len() / self.frames[0].bare_len();
        let last_uses = self.last_uses();
        let mut buffers: Vec<Option<Vec<f32>>> = vec![None; self.frames.len()];
        let mut first = work.take(&self.frames[0], count);
        self.frames[0].fill(images, &mut first);
        buffers[0] = Some(first);
        let mut marks = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            let (frame, out_frame) = (&self.frames[step.input], &self.frames[index + 1]);
            let mut out = work.take(out_frame, count);
            let value = |index: usize| buffers[index].as_deref().expect("a value that is still read");
            let input = value(step.input);
            let mut mark = Marks::new();
            match &step.layer {
                Layer::Convolution(convolution) => {
                    let residual = convolution.residual.map(value);
                    if keep && convolution.activation == Activation::Relu {
                        mark.resize(count * out_frame.len(), 0);
                    }
                    convolution.forward(input, count, frame, residual, out_frame, &mut out, &mut mark, work);
                }
                Layer::ScaleShiftRelu { scale, shift } => {
                    if keep {
                        mark.resize(count * out_frame.len(), 0);
                    }
                    for (image, i) in rows(count, out_frame) {
                        let from = &input[image * frame.len()..][frame.row(i)];
                        let range = image * out_frame.len() + out_frame.row(i).start;
                        let out = &mut out[range..range + from.len()];
                        wide(|| scale_shift_relu(from, scale, shift, out));
                        if keep {
                            wide(|| signs(out, &mut mark[range..range + from.len()]));
                        }
                    }
                }
                Layer::MaxPool(size) => {
                    mark.resize(count * out_frame.bare_len(), 0);
                    for image in 0..count {
                        let input = &input[image * frame.len()..];
                        let out = &mut out[image * out_frame.len()..];
                        let mark = &mut mark[image * out_frame.bare_len()..];
                        wide(|| max_pool(input, frame, *size, out, out_frame, mark));
                    }
                }
                Layer::MeanPerChannel => {
                    let scale = 1.0 / (frame.height * frame.width) as f32;
                    for image in 0..count {
                        let input = &input[image * frame.len()..];
                        let out = &mut out[image * out_frame.len()..][out_frame.row(0)];
                        out.fill(0.0);
                        for i in 0..frame.height {
                            for pixel in input[frame.row(i)].chunks_exact(frame.channels) {
                                add(out, pixel);
                            }
                        }
                        out.iter_mut().for_each(|sum| *sum *= scale);
                    }
                }
            }
            marks.push(if keep { mark } else { Marks::new() });
            buffers[index + 1] = Some(out);
            for (value, (buffer, &last)) in buffers.iter_mut().zip(&last_uses).enumerate() {
                if last == index
                    && let Some(buffer) = buffer.take()
                {
                    work.give(&self.frames[value], buffer);
                }
            }
        }
        let last = buffers.pop().flatten().expect("a network has a layer");
        let frame = &self.frames[self.frames.len() - 1];
        frame.scatter(&last[..count * frame.len()], logits);
        work.give(frame, last);
        marks
    }
}

/// Every row of pixels: image, row.
pub(super) fn rows(images: usize, frame: &Frame) -> impl Iterator<Item = (usize, usize)> + use<> {
    let height = frame.height;
    (0..images).flat_map(move |image| (0..height).map(move |i| (image, i)))
}

/// 1 where a number is not zero, else 0.
#[inline(always)]
fn signs(values: &[f32], marks: &mut [u8]) {
    for (mark, &value) in marks.iter_mut().zip(values) {
        *mark = u8::from(value != 0.0);
    }
}

#[inline(always)]
pub(super) fn add(sums: &mut [f32], values: &[f32]) {
    sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += value);
}

/// For pixels side by side.
#[inline(always)]
fn scale_shift_relu(from: &[f32], scale: &[f32], shift: &[f32], out: &mut [f32]) {
    let channels = scale.len();
    for (from, out) in from.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
        for ((out, &x), (&scale, &shift)) in out.iter_mut().zip(from).zip(scale.iter().zip(shift)) {
            let y = x * scale + shift;
            *out = if y <= 0.0 { 0.0 } else { y };
        }
    }
}

/// The maxima of all windows of one image, and their places: row by row, the first of equal ones. A NaN
/// counts as the maximum.
#[inline(always)]
fn max_pool(input: &[f32], frame: &Frame, size: usize, out: &mut [f32], out_frame: &Frame, places: &mut [u8]) {
    let channels = frame.channels;
    for i in 0..out_frame.height {
        for j in 0..out_frame.width {
            let start = out_frame.at(i, j);
            let out = &mut out[start..start + channels];
            let places = &mut places[(i * out_frame.width + j) * channels..][..channels];
            for place in 0..size * size {
                let start = frame.at(i * size + place / size, j * size + place % size);
                let pixel = &input[start..start + channels];
                if place == 0 {
                    out.copy_from_slice(pixel);
                    places.fill(0);
                    continue;
                }
                for ((out, at), &next) in out.iter_mut().zip(places.iter_mut()).zip(pixel) {
                    let larger = next > *out || (next.is_nan() && !out.is_nan());
                    *out = if larger { next } else { *out };
                    *at = if larger { place as u8 } else { *at };
                }
            }
        }
    }
}

impl Convolution {
    #[expect(clippy::too_many_arguments, reason = "each is a different buffer")]
    fn forward(
        &self,
        input: &[f32],
        images: usize,
        frame: &Frame,
        residual: Option<&[f32]>,
        out_frame: &Frame,
        out: &mut [f32],
        marks: &mut [u8],
        work: &mut Workspace,
    ) {
        let relu = self.activation == Activation::Relu;
        self.forward
            .run(input, images, frame, out_frame, work, |start, channel, sums| {
                let range = start + channel..start + channel + sums.len();
                let out = &mut out[range.clone()];
                let bias = &self.bias[channel..channel + sums.len()];
                match residual {
                    // The residual lies as the result does.
                    Some(residual) => {
                        let residual = &residual[range.clone()];
                        for ((out, &sum), (&bias, &residual)) in out.iter_mut().zip(sums).zip(bias.iter().zip(residual))
                        {
                            *out = sum + bias + residual;
                        }
                    }
                    None => {
                        for ((out, &sum), &bias) in out.iter_mut().zip(sums).zip(bias) {
                            *out = sum + bias;
                        }
                    }
                }
                if relu {
                    out.iter_mut()
                        .for_each(|out| *out = if *out <= 0.0 { 0.0 } else { *out });
                }
                if !marks.is_empty() {
                    signs(out, &mut marks[range]);
                }
            });
    }
}
