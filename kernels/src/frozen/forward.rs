//! The forward pass of a frozen network.

use super::plan::{Convolution, Layer, Marks, Plan, rows};
use super::workspace::Workspace;
use crate::activation::Activation;
use crate::convolution::Sink;
use crate::frame::Frame;
use crate::lanes::{LANES, add, max_pool};
use crate::wide::wide;

impl Plan {
    /// The logits of one group of images, and what the gradient needs.
    pub(super) fn forward(&self, images: &[f32], logits: &mut [f32], keep: bool, work: &mut Workspace) -> Vec<Marks> {
        let count = images.len() / self.frames[0].bare_len();
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
            for &value in &self.last_reads[index] {
                let buffer = buffers[value].take().expect("a value that was still read");
                work.give(&self.frames[value], buffer);
            }
        }
        let last = buffers.pop().flatten().expect("a network has a layer");
        let frame = &self.frames[self.frames.len() - 1];
        frame.scatter(&last[..count * frame.len()], logits);
        work.give(frame, last);
        marks
    }
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
    /// Laid out as the result is.
    residual: Option<&'a [f32]>,
    relu: bool,
    out: &'a mut [f32],
    /// Empty if they are not asked for.
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
