//! The gradient of a network in training.

use rayon::prelude::*;

use super::forward::scale_by;
use super::norm;
use super::pass::{Kept, Note, Pass};
use crate::activation::Activation;
use crate::convolution::{Pixels, weight_gradient};
use crate::frame::Frame;
use crate::graph::{Convolution, Layer};
use crate::lanes::{add, mask_by_result, max_pool_gradient};

/// What a pass back through the network finds.
pub(super) struct Derivatives {
    /// The gradient of the images `[B, C, H, W]`, if it was asked for.
    pub(super) images: Option<Vec<f32>>,
    /// The gradient of each parameter.
    pub(super) parameters: Vec<Vec<f32>>,
}

/// Numbers of one task of a pass over all numbers.
const TASK: usize = 1 << 15;

/// A backward pass in progress.
struct Backward<'a> {
    pass: &'a Pass,
    parameters: &'a [&'a [f32]],
    kept: Kept,
    /// The gradients that each value has received so far.
    gradients: Vec<Option<Vec<f32>>>,
    to_parameters: Vec<Vec<f32>>,
    /// Whether the gradient of the images is asked for.
    to_images: bool,
}

impl Pass {
    /// From the gradient of the logits to that of the images, if asked, and of the parameters.
    pub(super) fn backward(&self, kept: Kept, gradient: &[f32], parameters: &[&[f32]], to_images: bool) -> Derivatives {
        let graph = &self.recording.graph;
        let mut logits = self.pool.take(gradient.len());
        Frame::bare(graph.shapes[graph.last()]).fill(gradient, &mut logits);
        let mut gradients = vec![None; graph.shapes.len()];
        gradients[graph.last()] = Some(logits);
        let mut backward = Backward {
            pass: self,
            parameters,
            kept,
            gradients,
            to_parameters: parameters.iter().map(|numbers| vec![0.0; numbers.len()]).collect(),
            to_images,
        };
        for index in (0..graph.steps.len()).rev() {
            // A value that nothing reads has no gradient.
            if let Some(gradient) = backward.gradients[index + 1].take() {
                backward.step(index, gradient);
            }
        }
        backward.finish()
    }
}

impl Backward<'_> {
    /// From the gradient of one step's result to those of what it reads.
    fn step(&mut self, index: usize, mut gradient: Vec<f32>) {
        let pass = self.pass;
        let step = &pass.recording.graph.steps[index];
        pass.restore_for(&mut self.kept, index, self.parameters);
        let result = self.kept.values[index + 1].take().unwrap_or_default();
        let note = std::mem::take(&mut self.kept.notes[index]);
        let frames = [step.input, index + 1].map(|value| Frame::bare(pass.recording.graph.shapes[value]));
        let wanted = step.input > 0 || self.to_images;
        let to_input = match &step.layer {
            Layer::Convolution(convolution) => {
                if convolution.activation == Activation::Relu {
                    mask(&mut gradient, &result);
                }
                self.convolution(convolution, step.input, note, gradient, wanted)
            }
            Layer::NormRelu(norm) => {
                mask(&mut gradient, &result);
                let moments = note.moments.as_ref().expect("kept by the forward pass");
                let input = self.kept.values[step.input].as_deref();
                let input = input.expect("what was normalised is kept");
                norm::backward(
                    norm,
                    self.parameters,
                    moments,
                    input,
                    &mut gradient,
                    &mut self.to_parameters,
                );
                Some(gradient)
            }
            Layer::MaxPool(size) => Some(pass.gradient_of_maxima(*size, &note.places, gradient, frames)),
            Layer::MeanPerChannel => Some(pass.gradient_of_means(gradient, frames)),
            Layer::Dropout(_) => {
                scale_by(&mut gradient, &pass.factors[index]);
                Some(gradient)
            }
        };
        pass.pool.give(result);
        if let Some(to_input) = to_input.filter(|_| wanted) {
            self.receive(step.input, to_input);
        }
    }

    /// From the gradient behind the activation. Returns that of the input, if it is wanted.
    fn convolution(
        &mut self,
        convolution: &Convolution,
        input: usize,
        note: Note,
        mut gradient: Vec<f32>,
        wanted: bool,
    ) -> Option<Vec<f32>> {
        let (pass, geometry) = (self.pass, &convolution.geometry);
        if let Some(residual) = convolution.residual {
            let mut copy = pass.pool.take(gradient.len());
            copy.copy_from_slice(&gradient);
            self.receive(residual, copy);
        }
        if let Some(norm) = &convolution.norm {
            let moments = note.moments.as_ref().expect("kept by the forward pass");
            let to_parameters = &mut self.to_parameters;
            norm::backward(
                norm,
                self.parameters,
                moments,
                &note.normalised,
                &mut gradient,
                to_parameters,
            );
        }
        pass.pool.give(note.normalised);
        if let Some(bias) = convolution.bias {
            channel_sums(&gradient, &mut self.to_parameters[bias]);
        }
        let operands = Pixels {
            images: self.kept.values[input]
                .as_deref()
                .expect("a convolution's input is kept"),
            gradient: &gradient,
        };
        let batch = gradient.len() / geometry.output_len();
        weight_gradient(geometry, batch, &operands, &mut self.to_parameters[convolution.weight]);
        let weights = self.parameters[convolution.weight];
        let to_input = wanted.then(|| pass.gradient_to_images(geometry, weights, &gradient));
        pass.pool.give(gradient);
        to_input
    }

    /// Adds a gradient to those from other readers of the value.
    fn receive(&mut self, value: usize, gradient: Vec<f32>) {
        let Some(sum) = &mut self.gradients[value] else {
            self.gradients[value] = Some(gradient);
            return;
        };
        sum.par_chunks_mut(TASK)
            .zip(gradient.par_chunks(TASK))
            .for_each(|(sum, gradient)| add(sum, gradient));
        self.pass.pool.give(gradient);
    }

    fn finish(mut self) -> Derivatives {
        let pool = &self.pass.pool;
        let images = self.gradients[0].take().map(|gradient| {
            let mut planes = vec![0.0; gradient.len()];
            Frame::bare(self.pass.recording.graph.shapes[0]).scatter(&gradient, &mut planes);
            pool.give(gradient);
            planes
        });
        let values = self.kept.values.into_iter().flatten();
        values.for_each(|value| pool.give(value));
        Derivatives {
            images,
            parameters: self.to_parameters,
        }
    }
}

impl Pass {
    fn gradient_of_maxima(
        &self,
        size: usize,
        places: &[u8],
        gradient: Vec<f32>,
        [frame, out_frame]: [Frame; 2],
    ) -> Vec<f32> {
        let mut to_input = self.pool.zeros(gradient.len() / out_frame.len() * frame.len());
        to_input
            .par_chunks_mut(frame.len())
            .zip(gradient.par_chunks(out_frame.len()))
            .zip(places.par_chunks(out_frame.len()))
            .for_each(|((to, from), places)| max_pool_gradient(from, &out_frame, places, size, to, &frame));
        self.pool.give(gradient);
        to_input
    }

    fn gradient_of_means(&self, gradient: Vec<f32>, [frame, out_frame]: [Frame; 2]) -> Vec<f32> {
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
        self.pool.give(gradient);
        to_input
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
