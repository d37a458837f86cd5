//! The gradient of a frozen network to its images.

use super::plan::{Convolution, Layer, Marks, Method, Plan, rows};
use super::workspace::Workspace;
use crate::activation::Activation;
use crate::convolution::Sink;
use crate::frame::Frame;
use crate::lanes::{add, max_pool_gradient};
use crate::wide::wide;

impl Plan {
    /// From the gradient of a group's logits to that of its images.
    pub(super) fn backward(&self, gradient: &[f32], marks: &[Marks], out: &mut [f32], work: &mut Workspace) {
        let frames = &self.gradient_frames;
        let count = out.len() / frames[0].bare_len();
        let mut gradients: Vec<Option<Vec<f32>>> = vec![None; frames.len()];
        let last = frames.len() - 1;
        let mut logits = work.take(&frames[last], count);
        frames[last].fill(gradient, &mut logits);
        gradients[last] = Some(logits);
        for (index, step) in self.steps.iter().enumerate().rev() {
            // A value that nothing reads has no gradient.
            let Some(mut gradient) = gradients[index + 1].take() else {
                continue;
            };
            let (frame, to_frame) = (&frames[index + 1], &frames[step.input]);
            let (value, mark) = (&self.frames[index + 1], &marks[index]);
            let earlier = gradients[step.input].take();
            let is_first = earlier.is_none();
            let mut to_input = earlier.unwrap_or_else(|| work.take(to_frame, count));
            match &step.layer {
                Layer::Convolution(convolution) => {
                    if convolution.activation == Activation::Relu {
                        mask(&mut gradient, frame, mark, value, count);
                    }
                    convolution.backward(&gradient, count, frame, is_first, to_frame, &mut to_input, work);
                    if let Some(residual) = convolution.residual {
                        // Without an earlier gradient this one's buffer becomes the residual's. Both have the same
                        // frame.
                        match &mut gradients[residual] {
                            Some(sum) => add(sum, &gradient),
                            none => *none = Some(std::mem::take(&mut gradient)),
                        }
                    }
                }
                Layer::ScaleShiftRelu { scale, .. } => {
                    mask(&mut gradient, frame, mark, value, count);
                    for (image, i) in rows(count, frame) {
                        let from = &gradient[image * frame.len()..][frame.row(i)];
                        let to = &mut to_input[image * to_frame.len()..][to_frame.row(i)];
                        scaled(from, scale, to, is_first);
                    }
                }
                Layer::MaxPool(size) => {
                    if is_first {
                        clear(&mut to_input, to_frame, count);
                    }
                    for image in 0..count {
                        let from = &gradient[image * frame.len()..];
                        let to = &mut to_input[image * to_frame.len()..];
                        let mark = &mark[image * frame.bare_len()..];
                        max_pool_gradient(from, frame, mark, *size, to, to_frame);
                    }
                }
                Layer::MeanPerChannel => {
                    let scale = 1.0 / (to_frame.height * to_frame.width) as f32;
                    for (image, i) in rows(count, to_frame) {
                        let from = &gradient[image * frame.len()..][frame.row(0)];
                        let to = &mut to_input[image * to_frame.len()..][to_frame.row(i)];
                        for to in to.chunks_exact_mut(from.len()) {
                            let pairs = to.iter_mut().zip(from);
                            if is_first {
                                pairs.for_each(|(to, &g)| *to = g * scale)
                            } else {
                                pairs.for_each(|(to, &g)| *to += g * scale)
                            }
                        }
                    }
                }
            }
            if !gradient.is_empty() {
                work.give(frame, gradient);
            }
            gradients[step.input] = Some(to_input);
        }
        let images = gradients[0].take().expect("the first layer reads the images");
        frames[0].scatter(&images[..count * frames[0].len()], out);
        work.give(&frames[0], images);
    }
}

/// Zero inside the border.
fn clear(gradient: &mut [f32], frame: &Frame, images: usize) {
    for (image, i) in rows(images, frame) {
        gradient[image * frame.len()..][frame.row(i)].fill(0.0);
    }
}

/// Zero where the ReLU was off. Marks are laid out as the value is.
fn mask(gradient: &mut [f32], frame: &Frame, marks: &[u8], value: &Frame, images: usize) {
    for (image, i) in rows(images, frame) {
        let gradient = &mut gradient[image * frame.len()..][frame.row(i)];
        let marks = &marks[image * value.len()..][value.row(i)];
        crate::lanes::mask(gradient, marks);
    }
}

wide! {
    /// For pixels side by side.
    fn scaled[](from: &[f32], scale: &[f32], to: &mut [f32], is_first: bool) {
        let channels = scale.len();
        for (to, from) in to.chunks_exact_mut(channels).zip(from.chunks_exact(channels)) {
            let pairs = to.iter_mut().zip(from).zip(scale);
            if is_first {
                pairs.for_each(|((to, &g), &scale)| *to = g * scale);
            } else {
                pairs.for_each(|((to, &g), &scale)| *to += g * scale);
            }
        }
    }
}

impl Convolution {
    #[expect(clippy::too_many_arguments, reason = "each is a different buffer")]
    fn backward(
        &self,
        gradient: &[f32],
        images: usize,
        frame: &Frame,
        is_first: bool,
        to_frame: &Frame,
        to: &mut [f32],
        work: &mut Workspace,
    ) {
        if let Method::Direct(parts) = &self.backward {
            let covered: usize = parts.iter().map(|part| part.covered()).sum();
            if is_first && covered < to_frame.height * to_frame.width {
                clear(to, to_frame, images);
            }
        }
        let mut sums = Sums { values: to, is_first };
        self.backward.run(gradient, images, frame, to_frame, work, &mut sums);
    }
}

/// Gradients that are added up.
struct Sums<'a> {
    values: &'a mut [f32],
    is_first: bool,
}

impl Sink<f32> for Sums<'_> {
    #[inline(always)]
    fn put(&mut self, start: usize, channel: usize, sums: &[f32]) {
        let values = &mut self.values[start + channel..start + channel + sums.len()];
        if self.is_first {
            values.copy_from_slice(sums)
        } else {
            values.iter_mut().zip(sums).for_each(|(value, &sum)| *value += sum)
        }
    }
}
