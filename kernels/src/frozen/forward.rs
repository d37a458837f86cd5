//! The forward pass of a frozen network.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Convolution, Layer, Plan, Workspace};
use crate::activation::Activation;
use crate::convolution::Sink;
use crate::element::values;
use crate::frame::Frame;
use crate::lanes::{LANES, add, max_pool};
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
                        scale_shift_relu(from, scale, shift, out);
                        if keep {
                            signs(out, &mut mark[range..range + from.len()]);
                        }
                    }
                }
                Layer::MaxPool(size) => {
                    mark.resize(count * out_frame.bare_len(), 0);
                    for image in 0..count {
                        let input = &input[image * frame.len()..];
                        let out = &mut out[image * out_frame.len()..];
                        let mark = &mut mark[image * out_frame.bare_len()..];
                        max_pool(input, frame, *size, out, out_frame, mark);
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

wide! {
    /// 1 where a number is not zero, else 0.
    fn signs[](values: &[f32], marks: &mut [u8]) {
        for (mark, &value) in marks.iter_mut().zip(values) {
            *mark = u8::from(value != 0.0);
        }
    }
}

wide! {
    /// For pixels side by side.
    fn scale_shift_relu[](from: &[f32], scale: &[f32], shift: &[f32], out: &mut [f32]) {
        let channels = scale.len();
        for (from, out) in from.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
            for ((out, &x), (&scale, &shift)) in out.iter_mut().zip(from).zip(scale.iter().zip(shift)) {
                let y = x * scale + shift;
                *out = if y <= 0.0 { 0.0 } else { y };
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
        let mut finish = Finish {
            bias: &self.bias,
            residual,
            relu: self.activation == Activation::Relu,
            out,
            marks,
        };
        self.forward.run(input, images, frame, out_frame, work, &mut finish);
    }
}

/// What comes after a convolution's sums.
struct Finish<'a> {
    bias: &'a [f32],
    /// Lies as the result does.
    residual: Option<&'a [f32]>,
    relu: bool,
    out: &'a mut [f32],
    /// Empty if nobody asks for them.
    marks: &'a mut [u8],
}

impl Sink<f32> for Finish<'_> {
    #[inline(always)]
    fn put(&mut self, start: usize, channel: usize, sums: &[f32]) {
        let (blocks, rest) = sums.as_chunks::<LANES>();
        for (block, sums) in blocks.iter().enumerate() {
            self.put_lanes(start, channel + block * LANES, sums);
        }
        let done = channel + blocks.len() * LANES;
        for (c, &sum) in rest.iter().enumerate() {
            self.put_lanes(start, done + c, &[sum]);
        }
    }
}

impl Finish<'_> {
    /// Writes the result for channels side by side of the pixel that begins at `start`.
    #[inline(always)]
    fn put_lanes<const N: usize>(&mut self, start: usize, channel: usize, sums: &[f32; N]) {
        let at = start + channel;
        let bias: &[f32; N] = self.bias[channel..].first_chunk().expect("a bias for every channel");
        let mut values: [f32; N] = std::array::from_fn(|i| sums[i] + bias[i]);
        if let Some(residual) = self.residual {
            let residual: &[f32; N] = residual[at..].first_chunk().expect("a residual for every number");
            values = std::array::from_fn(|i| values[i] + residual[i]);
        }
        if self.relu {
            values = values.map(|value| if value <= 0.0 { 0.0 } else { value });
        }
        self.out[at..at + N].copy_from_slice(&values);
        if !self.marks.is_empty() {
            self.marks[at..at + N].copy_from_slice(&values.map(|value| u8::from(value != 0.0)));
        }
    }
}
