//! The gradient of a network in training.

use candle_core::Result;
use rayon::prelude::*;

use super::{Kept, Layer, Run};
use crate::bias::Activation;
use crate::convolution::{Geometry, Pixels, Plain, Scratch, Winograd, over_pixels, weight_gradient};
use crate::frame::Frame;
use crate::lanes::{add, mask_by_result, max_pool_gradient};

use super::forward::scale_by;

/// Numbers of one task of a pass over all numbers.
const TASK: usize = 1 << 15;

impl Run {
    /// From the gradient of the logits to that of the images, if asked, and of the parameters.
    pub(super) fn backward(
        &self,
        mut kept: Kept,
        gradient: Vec<f32>,
        parameters: &[f32],
        images: bool,
    ) -> Result<(Option<Vec<f32>>, Vec<f32>)> {
        let mut to_parameters = vec![0.0; parameters.len()];
        let mut gradients: Vec<Option<Vec<f32>>> = vec![None; self.shapes.len()];
        let last = self.shapes.len() - 1;
        let mut logits = vec![0.0; gradient.len()];
        Frame::bare(self.shapes[last]).fill(&gradient, &mut logits);
        gradients[last] = Some(logits);
        for (index, step) in self.steps.iter().enumerate().rev() {
            let result = kept.values[index + 1].take();
            let note = std::mem::take(&mut kept.notes[index]);
            // A value that nothing reads has no gradient.
            let Some(mut gradient) = gradients[index + 1].take() else {
                continue;
            };
            let (frame, out_frame) = (
                Frame::bare(self.shapes[step.input]),
                Frame::bare(self.shapes[index + 1]),
            );
            let wanted = step.input > 0 || images;
            let to_input = match &step.layer {
                Layer::Convolution {
                    geometry,
                    weight,
                    bias,
                    norm,
                    residual,
                    activation,
                } => {
                    if *activation == Activation::Relu {
                        mask(&mut gradient, result.as_deref().expect("a ReLU's result is kept"));
                    }
                    drop(result);
                    if let Some(residual) = residual {
                        receive(&mut gradients[*residual], gradient.clone());
                    }
                    if let Some(norm) = norm {
                        let moments = note.moments.as_ref().expect("kept by the forward pass");
                        norm.backward(parameters, moments, &note.normalised, &mut gradient, &mut to_parameters);
                    }
                    drop(note);
                    if let Some(bias) = bias {
                        channel_sums(&gradient, &mut to_parameters[bias.clone()]);
                    }
                    let input = kept.values[step.input]
                        .as_deref()
                        .expect("a convolution's input is kept");
                    let operands = Pixels {
                        images: input,
                        gradient: &gradient,
                    };
                    let batch = gradient.len() / out_frame.len();
                    weight_gradient(geometry, batch, &operands, &mut to_parameters[weight.clone()]);
                    wanted.then(|| to_images(geometry, &parameters[weight.clone()], &gradient))
                }
                Layer::NormRelu(norm) => {
                    mask(&mut gradient, result.as_deref().expect("a ReLU's result is kept"));
                    drop(result);
                    let moments = note.moments.as_ref().expect("kept by the forward pass");
                    let input = kept.values[step.input].as_deref().expect("what was normalised is kept");
                    norm.backward(parameters, moments, input, &mut gradient, &mut to_parameters);
                    Some(gradient)
                }
                Layer::MaxPool(size) => {
                    let mut to_input = vec![0.0; gradient.len() / out_frame.len() * frame.len()];
                    to_input
                        .par_chunks_mut(frame.len())
                        .zip(gradient.par_chunks(out_frame.len()))
                        .zip(note.places.par_chunks(out_frame.len()))
                        .for_each(|((to, from), places)| {
                            max_pool_gradient(from, &out_frame, places, *size, to, &frame);
                        });
                    Some(to_input)
                }
                Layer::MeanPerChannel => {
                    let scale = 1.0 / (frame.height * frame.width) as f32;
                    let mut to_input = vec![0.0; gradient.len() / out_frame.len() * frame.len()];
                    to_input
                        .par_chunks_mut(frame.len())
                        .zip(gradient.par_chunks(out_frame.len()))
                        .for_each(|(to, from)| {
                            for to in to.chunks_exact_mut(from.len()) {
                                to.iter_mut().zip(from).for_each(|(to, &g)| *to = g * scale);
                            }
                        });
                    Some(to_input)
                }
                Layer::Dropout(_) => {
                    scale_by(&mut gradient, &self.factors[index]);
                    Some(gradient)
                }
            };
            if let Some(to_input) = to_input.filter(|_| wanted) {
                receive(&mut gradients[step.input], to_input);
            }
        }
        let to_images = gradients[0].take().map(|gradient| {
            let mut planes = vec![0.0; gradient.len()];
            Frame::bare(self.shapes[0]).scatter(&gradient, &mut planes);
            planes
        });
        Ok((to_images.filter(|_| images), to_parameters))
    }
}

/// Adds a gradient to what other readers of the value sent.
fn receive(sum: &mut Option<Vec<f32>>, gradient: Vec<f32>) {
    match sum {
        None => *sum = Some(gradient),
        Some(sum) => sum
            .par_chunks_mut(TASK)
            .zip(gradient.par_chunks(TASK))
            .for_each(|(sum, gradient)| add(sum, gradient)),
    }
}

/// Zero where the ReLU was off.
fn mask(gradient: &mut [f32], result: &[f32]) {
    gradient
        .par_chunks_mut(TASK)
        .zip(result.par_chunks(TASK))
        .for_each(|(gradient, result)| mask_by_result(gradient, result));
}

/// The sum of each channel over all pixels, in double precision.
fn channel_sums(gradient: &[f32], out: &mut [f32]) {
    let channels = out.len();
    let parts: Vec<Vec<f64>> = gradient
        .par_chunks((TASK / channels).max(1) * channels)
        .map(|pixels| {
            let mut sums = vec![0.0; channels];
            for pixel in pixels.chunks_exact(channels) {
                sums.iter_mut().zip(pixel).for_each(|(sum, &g)| *sum += f64::from(g));
            }
            sums
        })
        .collect();
    for (channel, out) in out.iter_mut().enumerate() {
        *out = parts.iter().map(|part| part[channel]).sum::<f64>() as f32;
    }
}

/// The gradient to the images of a convolution, both `[N, H, W, C]`.
fn to_images(geometry: &Geometry, weights: &[f32], gradient: &[f32]) -> Vec<f32> {
    let frame = geometry.gradient_frame();
    let out = Frame::bare([geometry.inputs, geometry.height, geometry.width]);
    if let Some(winograd) = Winograd::backward(geometry, weights, &frame) {
        return over_pixels(&frame, gradient, &out, |frames, count, results, _| {
            Scratch::of_thread(|scratch| winograd.run(frames, count, &frame, &out, scratch, &mut Plain(results)));
        });
    }
    let parts = geometry.backward(weights, &frame);
    over_pixels(&frame, gradient, &out, |frames, count, results, _| {
        for part in &parts {
            part.run(frames, count, frame.len(), &out, &mut Plain(results));
        }
    })
}
