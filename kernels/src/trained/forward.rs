//! The forward pass of a network in training.

use candle_core::Result;
use rayon::prelude::*;

use super::{Kept, Layer, Note, Run, Step};
use crate::activation::Activation;
use crate::convolution::{Geometry, Plain, Scratch, Winograd, over_pixels};
use crate::frame::Frame;
use crate::lanes::{add, max_pool};
use crate::wide::wide;

impl Run {
    /// The last step that reads each value in the forward pass.
    fn last_uses(&self) -> Vec<usize> {
        let mut last = vec![usize::MAX; self.shapes.len()];
        for (index, step) in self.steps.iter().enumerate() {
            last[step.input] = index;
            if let Layer::Convolution {
                residual: Some(residual),
                ..
            } = step.layer
            {
                last[residual] = index;
            }
        }
        last
    }

    /// Whether each value is kept for the gradient, which reads it as a convolution's input, for its batch
    /// normalisation, or to tell where a ReLU was off. What [`Run::restore`] can make again is not kept.
    fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.shapes.len()];
        for (index, step) in self.steps.iter().enumerate() {
            match &step.layer {
                Layer::Convolution { activation, .. } => {
                    needed[step.input] = true;
                    needed[index + 1] |= *activation == Activation::Relu;
                }
                Layer::NormRelu(_) => {
                    needed[step.input] = true;
                    needed[index + 1] = true;
                }
                Layer::MaxPool(_) | Layer::MeanPerChannel | Layer::Dropout(_) => {}
            }
        }
        for (step, needed) in self.steps.iter().zip(&mut needed[1..]) {
            *needed &= !step.layer.is_normalisation();
        }
        needed
    }

    /// The logits, and what the gradient needs.
    pub(super) fn forward(&self, images: &[f32], batch: usize, parameters: &[&[f32]]) -> Result<(Vec<f32>, Kept)> {
        let (last_uses, needed) = (self.last_uses(), self.needed());
        let mut values: Vec<Option<Vec<f32>>> = vec![None; self.shapes.len()];
        let mut first = self.pool.take(images.len());
        Frame::bare(self.shapes[0]).fill(images, &mut first);
        values[0] = Some(first);
        let mut notes = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            let (shape, out_shape) = (self.shapes[step.input], self.shapes[index + 1]);
            let (frame, out_frame) = (Frame::bare(shape), Frame::bare(out_shape));
            let value = |index: usize| values[index].as_deref().expect("a value that is still read");
            let input = value(step.input);
            let mut note = Note::default();
            let out = match &step.layer {
                Layer::Convolution {
                    geometry,
                    weight,
                    bias,
                    norm,
                    residual,
                    activation,
                } => {
                    let weights = parameters[*weight];
                    let bias = bias.map_or(&[][..], |bias| parameters[bias]);
                    let residual = residual.map(value);
                    let relu = *activation == Activation::Relu;
                    match norm {
                        None => self.convolve(geometry, weights, input, |pixels, place| {
                            let residual = residual.map_or(&[][..], |residual| &residual[place..][..pixels.len()]);
                            finish(pixels, bias, residual, relu);
                        }),
                        Some(norm) => {
                            let finish = |pixels: &mut [f32], _| finish(pixels, bias, &[], false);
                            let sums = self.convolve(geometry, weights, input, finish);
                            let moments = norm.moments(&sums, geometry.outputs, self.statistics)?;
                            let mut out = self.pool.take(sums.len());
                            norm.normalise(parameters, &moments, &sums, residual, relu, &mut out);
                            note.moments = Some(moments);
                            if self.keep {
                                note.normalised = sums
                            } else {
                                self.pool.give(sums)
                            }
                            out
                        }
                    }
                }
                Layer::NormRelu(norm) => {
                    let moments = norm.moments(input, frame.channels, self.statistics)?;
                    let mut out = self.pool.take(input.len());
                    norm.normalise(parameters, &moments, input, None, true, &mut out);
                    note.moments = Some(moments);
                    out
                }
                Layer::MaxPool(size) => {
                    let mut out = self.pool.take(batch * out_frame.len());
                    note.places = vec![0; out.len()];
                    out.par_chunks_mut(out_frame.len())
                        .zip(note.places.par_chunks_mut(out_frame.len()))
                        .zip(input.par_chunks(frame.len()))
                        .for_each(|((out, places), input)| max_pool(input, &frame, *size, out, &out_frame, places));
                    out
                }
                Layer::MeanPerChannel => {
                    let mut out = self.pool.zeros(batch * out_frame.len());
                    let scale = 1.0 / (frame.height * frame.width) as f32;
                    out.par_chunks_mut(out_frame.len())
                        .zip(input.par_chunks(frame.len()))
                        .for_each(|(out, input)| {
                            input.chunks_exact(frame.channels).for_each(|pixel| add(out, pixel));
                            out.iter_mut().for_each(|sum| *sum *= scale);
                        });
                    out
                }
                Layer::Dropout(_) => {
                    let mut out = self.pool.take(input.len());
                    out.copy_from_slice(input);
                    scale_by(&mut out, &self.factors[index]);
                    out
                }
            };
            notes.push(note);
            values[index + 1] = Some(out);
            for (value, (held, &last)) in values.iter_mut().zip(&last_uses).enumerate() {
                if last == index
                    && !(self.keep && needed[value])
                    && let Some(buffer) = held.take()
                {
                    self.pool.give(buffer);
                }
            }
        }
        let last = values.pop().flatten().expect("a network has a layer");
        let shape = self.shapes[self.shapes.len() - 1];
        let mut logits = vec![0.0; last.len()];
        Frame::bare(shape).scatter(&last, &mut logits);
        values.push(needed[self.shapes.len() - 1].then_some(last));
        Ok((logits, Kept { values, notes }))
    }
}

impl Layer {
    /// Whether its result is a batch normalisation of what is kept, and cheap to make again.
    fn is_normalisation(&self) -> bool {
        match self {
            Self::NormRelu(_) => true,
            Self::Convolution { norm, residual, .. } => norm.is_some() && residual.is_none(),
            Self::MaxPool(_) | Self::MeanPerChannel | Self::Dropout(_) => false,
        }
    }
}

impl Run {
    /// Makes a value again that was not kept.
    pub(super) fn restore(&self, kept: &mut Kept, value: usize, parameters: &[&[f32]]) {
        if kept.values[value].is_some() {
            return;
        }
        let Step { input, layer } = &self.steps[value - 1];
        let (norm, relu) = match layer {
            Layer::NormRelu(norm) => {
                self.restore(kept, *input, parameters);
                (norm, true)
            }
            Layer::Convolution {
                norm: Some(norm),
                activation,
                ..
            } => (norm, *activation == Activation::Relu),
            _ => unreachable!("only results of batch normalisations are not kept"),
        };
        let note = &kept.notes[value - 1];
        let pixels = match layer {
            Layer::NormRelu(_) => kept.values[*input].as_deref().expect("just restored"),
            _ => &note.normalised,
        };
        let mut out = self.pool.take(pixels.len());
        let moments = note.moments.as_ref().expect("kept by the forward pass");
        norm.normalise(parameters, moments, pixels, None, relu, &mut out);
        kept.values[value] = Some(out);
    }

    /// The convolution of images `[N, H, W, C]`. `finish` gets some results and their place among all.
    fn convolve(
        &self,
        geometry: &Geometry,
        weights: &[f32],
        images: &[f32],
        finish: impl Fn(&mut [f32], usize) + Sync,
    ) -> Vec<f32> {
        let (frame, out) = (geometry.input_frame(), Frame::bare(geometry.out_shape()));
        let mut results = self.pool.take(images.len() / frame.bare_len() * out.len());
        match Winograd::forward(geometry, weights, &frame) {
            Some(winograd) => over_pixels(&frame, images, &out, &mut results, |frames, count, results, place| {
                Scratch::of_thread(|scratch| winograd.run(frames, count, &frame, &out, scratch, &mut Plain(results)));
                finish(results, place);
            }),
            None => {
                let part = geometry.forward(weights, &frame);
                over_pixels(&frame, images, &out, &mut results, |frames, count, results, place| {
                    part.run(frames, count, frame.len(), &out, &mut Plain(results));
                    finish(results, place);
                });
            }
        }
        results
    }
}

wide! {
    /// Adds bias and residual, unless they are empty, and applies the ReLU.
    fn finish[](pixels: &mut [f32], bias: &[f32], residual: &[f32], relu: bool) {
        if !bias.is_empty() {
            for pixel in pixels.chunks_exact_mut(bias.len()) {
                pixel.iter_mut().zip(bias).for_each(|(value, &bias)| *value += bias);
            }
        }
        pixels.iter_mut().zip(residual).for_each(|(value, &residual)| *value += residual);
        if relu {
            pixels.iter_mut().for_each(|value| *value = if *value <= 0.0 { 0.0 } else { *value });
        }
    }
}

/// Each number times its factor; no factors, no change.
pub(super) fn scale_by(values: &mut [f32], factors: &[f32]) {
    values
        .iter_mut()
        .zip(factors)
        .for_each(|(value, &factor)| *value *= factor);
}
