//! The forward pass of a network in training.

use candle_core::Result;
use rayon::prelude::*;

use super::norm;
use super::pass::{Kept, Note, Pass};
use crate::activation::Activation;
use crate::frame::Frame;
use crate::graph::{Convolution, Layer, Norm};
use crate::lanes::{add, max_pool};
use crate::wide::wide;

impl Pass {
    /// The logits, and what the gradient needs.
    pub(super) fn forward(&self, images: &[f32], batch: usize, parameters: &[&[f32]]) -> Result<(Vec<f32>, Kept)> {
        let graph = &self.recording.graph;
        let (last_reads, kept) = (graph.last_reads(), self.kept_values());
        let mut values: Vec<Option<Vec<f32>>> = vec![None; graph.shapes.len()];
        let mut first = self.pool.take(images.len());
        Frame::bare(graph.shapes[0]).fill(images, &mut first);
        values[0] = Some(first);
        let mut notes = Vec::with_capacity(graph.steps.len());
        for (index, step) in graph.steps.iter().enumerate() {
            let frames = [step.input, index + 1].map(|value| Frame::bare(graph.shapes[value]));
            let value = |index: usize| values[index].as_deref().expect("a value that is still read");
            let input = value(step.input);
            let mut note = Note::default();
            let out = match &step.layer {
                Layer::Convolution(convolution) => {
                    let residual = convolution.residual.map(value);
                    self.convolution(convolution, input, residual, parameters, &mut note)?
                }
                Layer::NormRelu(norm) => self.normalised(norm, input, None, true, parameters, &mut note)?,
                Layer::MaxPool(size) => self.maxima(*size, input, frames, batch, &mut note),
                Layer::MeanPerChannel => self.means(input, frames, batch),
                Layer::Dropout(_) => {
                    let mut out = self.pool.take(input.len());
                    out.copy_from_slice(input);
                    scale_by(&mut out, &self.factors[index]);
                    out
                }
            };
            notes.push(note);
            values[index + 1] = Some(out);
            for &value in &last_reads[index] {
                if !(self.keep && kept[value]) {
                    self.pool
                        .give(values[value].take().expect("a value that was still read"));
                }
            }
        }
        let last = values.pop().flatten().expect("a network has a layer");
        let mut logits = vec![0.0; last.len()];
        Frame::bare(graph.shapes[graph.last()]).scatter(&last, &mut logits);
        values.push(kept[graph.last()].then_some(last));
        Ok((logits, Kept { values, notes }))
    }

    /// A convolution and what follows it.
    fn convolution(
        &self,
        convolution: &Convolution,
        input: &[f32],
        residual: Option<&[f32]>,
        parameters: &[&[f32]],
        note: &mut Note,
    ) -> Result<Vec<f32>> {
        let weights = parameters[convolution.weight];
        let bias = convolution.bias.map_or(&[][..], |bias| parameters[bias]);
        let relu = convolution.activation == Activation::Relu;
        let Some(norm) = &convolution.norm else {
            let finish = |pixels: &mut [f32], place: usize| {
                let residual = residual.map_or(&[][..], |residual| &residual[place..][..pixels.len()]);
                finish(pixels, bias, residual, relu);
            };
            return Ok(self.convolve(&convolution.geometry, weights, input, finish));
        };
        let finish = |pixels: &mut [f32], _| finish(pixels, bias, &[], false);
        let sums = self.convolve(&convolution.geometry, weights, input, finish);
        let out = self.normalised(norm, &sums, residual, relu, parameters, note)?;
        if self.keep {
            note.normalised = sums;
        } else {
            self.pool.give(sums);
        }
        Ok(out)
    }

    /// A batch normalisation and what follows it.
    fn normalised(
        &self,
        norm: &Norm,
        pixels: &[f32],
        residual: Option<&[f32]>,
        relu: bool,
        parameters: &[&[f32]],
        note: &mut Note,
    ) -> Result<Vec<f32>> {
        let running = &self.recording.running[norm.running];
        let channels = parameters[norm.weight].len();
        let moments = norm::moments(norm, running, pixels, channels, self.statistics)?;
        let mut out = self.pool.take(pixels.len());
        norm::normalise(norm, parameters, &moments, pixels, residual, relu, &mut out);
        note.moments = Some(moments);
        Ok(out)
    }

    fn maxima(
        &self,
        size: usize,
        input: &[f32],
        [frame, out_frame]: [Frame; 2],
        batch: usize,
        note: &mut Note,
    ) -> Vec<f32> {
        let mut out = self.pool.take(batch * out_frame.len());
        note.places = vec![0; out.len()];
        out.par_chunks_mut(out_frame.len())
            .zip(note.places.par_chunks_mut(out_frame.len()))
            .zip(input.par_chunks(frame.len()))
            .for_each(|((out, places), input)| max_pool(input, &frame, size, out, &out_frame, places));
        out
    }

    fn means(&self, input: &[f32], [frame, out_frame]: [Frame; 2], batch: usize) -> Vec<f32> {
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
