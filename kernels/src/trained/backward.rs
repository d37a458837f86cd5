//! The gradient of a network in training.

use candle_core::Result;
use rayon::prelude::*;

use super::{Kept, Layer, Run};
use crate::activation::Activation;
use crate::convolution::{Geometry, Pixels, Plain, Scratch, Winograd, over_pixels, weight_gradient};
use crate::frame::Frame;
use crate::lanes::{add, mask_by_result, max_pool_gradient};

use super::forward::scale_by;

/// What a pass back through the network finds.
pub(super) struct Derivatives {
    /// The gradient of the images `[B, C, H, W]`, if it was asked for.
    pub(super) images: Option<Vec<f32>>,
    /// The gradient of each parameter.
    pub(super) parameters: Vec<Vec<f32>>,
}

/// Numbers of one task of a pass over all numbers.
const TASK: usize = 1 << 15;

impl Run {
    /// From the gradient of the logits to that of the images, if asked, and of the parameters.
    pub(super) fn backward(
        &self,
        mut kept: Kept,
        gradient: Vec<f32>,
        parameters: &[&[f32]],
        images: bool,
    ) -> Result<Derivatives> {
        let mut to_parameters: Vec<Vec<f32>> = parameters.iter().map(|it| vec![0.0; it.len()]).collect();
        let mut gradients: Vec<Option<Vec<f32>>> = vec![None; self.shapes.len()];
        let last = self.shapes.len() - 1;
        let mut logits = self.pool.take(gradient.len());
        Frame::bare(self.shapes[last]).fill(&gradient, &mut logits);
        gradients[last] = Some(logits);
        for (index, step) in self.steps.iter().enumerate().rev() {
            // A value that nothing reads has no gradient.
            let Some(mut gradient) = gradients[index + 1].take() else {
                continue;
            };
            match &step.layer {
                Layer::Convolution { activation, .. } => {
                    self.restore(&mut kept, step.input, parameters);
                    if *activation == Activation::Relu {
                        self.restore(&mut kept, index + 1, parameters);
                    }
                }
                Layer::NormRelu(_) => {
                    self.restore(&mut kept, step.input, parameters);
                    self.restore(&mut kept, index + 1, parameters);
                }
                Layer::MaxPool(_) | Layer::MeanPerChannel | Layer::Dropout(_) => {}
            }
            let result = kept.values[index + 1].take().unwrap_or_default();
            let note = std::mem::take(&mut kept.notes[index]);
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
                        mask(&mut gradient, &result);
                    }
                    if let Some(residual) = residual {
                        let mut copy = self.pool.take(gradient.len());
                        copy.copy_from_slice(&gradient);
                        self.receive(&mut gradients[*residual], copy);
                    }
                    if let Some(norm) = norm {
                        let moments = note.moments.as_ref().expect("kept by the forward pass");
                        norm.backward(parameters, moments, &note.normalised, &mut gradient, &mut to_parameters);
                    }
                    self.pool.give(note.normalised);
                    if let Some(bias) = bias {
                        channel_sums(&gradient, &mut to_parameters[*bias]);
                    }
                    let input = kept.values[step.input]
                        .as_deref()
                        .expect("a convolution's input is kept");
                    let operands = Pixels {
                        images: input,
                        gradient: &gradient,
                    };
                    let batch = gradient.len() / out_frame.len();
                    weight_gradient(geometry, batch, &operands, &mut to_parameters[*weight]);
                    let to_input = wanted.then(|| self.to_images(geometry, parameters[*weight], &gradient));
                    self.pool.give(gradient);
                    to_input
                }
                Layer::NormRelu(norm) => {
                    mask(&mut gradient, &result);
                    let moments = note.moments.as_ref().expect("kept by the forward pass");
                    let input = kept.values[step.input].as_deref().expect("what was normalised is kept");
                    norm.backward(parameters, moments, input, &mut gradient, &mut to_parameters);
                    Some(gradient)
                }
                Layer::MaxPool(size) => {
                    let mut to_input = self.pool.zeros(gradient.len() / out_frame.len() * frame.len());
                    to_input
                        .par_chunks_mut(frame.len())
                        .zip(gradient.par_chunks(out_frame.len()))
                        .zip(note.places.par_chunks(out_frame.len()))
                        .for_each(|((to, from), places)| {
                            max_pool_gradient(from, &out_frame, places, *size, to, &frame);
                        });
                    self.pool.give(gradient);
                    Some(to_input)
                }
                Layer::MeanPerChannel => {
                    let scale = 1.0 / (frame.height * frame.width) as f32;
                    let mut to_input = self.pool.take(gradient.len() / out_frame.len() * frame.len());
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
            self.pool.give(result);
            if let Some(to_input) = to_input.filter(|_| wanted) {
                self.receive(&mut gradients[step.input], to_input);
            }
        }
        let to_images = gradients[0].take().map(|gradient| {
            let mut planes = vec![0.0; gradient.len()];
            Frame::bare(self.shapes[0]).scatter(&gradient, &mut planes);
            self.pool.give(gradient);
            planes
        });
        kept.values
            .into_iter()
            .flatten()
            .for_each(|value| self.pool.give(value));
        Ok(Derivatives {
            images: to_images,
            parameters: to_parameters,
        })
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

impl Run {
    /// Adds a gradient to what other readers of the value sent.
    fn receive(&self, sum: &mut Option<Vec<f32>>, gradient: Vec<f32>) {
        let Some(sum) = sum else {
            *sum = Some(gradient);
            return;
        };
        sum.par_chunks_mut(TASK)
            .zip(gradient.par_chunks(TASK))
            .for_each(|(sum, gradient)| add(sum, gradient));
        self.pool.give(gradient);
    }

    /// The gradient to the images of a convolution, both `[N, H, W, C]`.
    fn to_images(&self, geometry: &Geometry, weights: &[f32], gradient: &[f32]) -> Vec<f32> {
        let frame = geometry.gradient_frame();
        let out = Frame::bare([geometry.inputs, geometry.height, geometry.width]);
        let len = gradient.len() / frame.bare_len() * out.len();
        if let Some(winograd) = Winograd::backward(geometry, weights, &frame) {
            let mut results = self.pool.take(len);
            over_pixels(&frame, gradient, &out, &mut results, |frames, count, results, _| {
                Scratch::of_thread(|scratch| winograd.run(frames, count, &frame, &out, scratch, &mut Plain(results)));
            });
            return results;
        }
        let parts = geometry.backward(weights, &frame);
        // With a stride there may be pixels that no result sees.
        let covered: usize = parts.iter().map(|part| part.covered()).sum();
        let mut results = if covered < out.height * out.width {
            self.pool.zeros(len)
        } else {
            self.pool.take(len)
        };
        over_pixels(&frame, gradient, &out, &mut results, |frames, count, results, _| {
            for part in &parts {
                part.run(frames, count, frame.len(), &out, &mut Plain(results));
            }
        });
        results
    }
}
