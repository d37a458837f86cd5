//! Which values are kept for the gradient, and which are computed again.

use super::norm;
use super::pass::{Kept, Pass};
use crate::activation::Activation;
use crate::graph::{Convolution, Layer};

/// Whether a layer's result is a batch normalisation of what is kept, and cheap to compute again.
fn is_normalisation(layer: &Layer) -> bool {
    match layer {
        Layer::NormRelu(_) => true,
        Layer::Convolution(convolution) => convolution.norm.is_some() && convolution.residual.is_none(),
        Layer::MaxPool(_) | Layer::MeanPerChannel | Layer::Dropout(_) => false,
    }
}

impl Pass {
    /// Whether each value is kept for the gradient: it reads it, and [`Pass::restore`] cannot compute it again.
    pub(super) fn kept_values(&self) -> Vec<bool> {
        let graph = &self.recording.graph;
        let mut kept = graph.kept_for_gradient();
        for (step, kept) in graph.steps.iter().zip(&mut kept[1..]) {
            *kept &= !is_normalisation(&step.layer);
        }
        kept
    }

    /// Computes again, if they were not kept, the values that the gradient of a step reads.
    pub(super) fn restore_for(&self, kept: &mut Kept, index: usize, parameters: &[&[f32]]) {
        let step = &self.recording.graph.steps[index];
        match step.layer {
            Layer::Convolution(Convolution { activation, .. }) => {
                self.restore(kept, step.input, parameters);
                if activation == Activation::Relu {
                    self.restore(kept, index + 1, parameters);
                }
            }
            Layer::NormRelu(_) => {
                self.restore(kept, step.input, parameters);
                self.restore(kept, index + 1, parameters);
            }
            Layer::MaxPool(_) | Layer::MeanPerChannel | Layer::Dropout(_) => {}
        }
    }

    /// Computes a value again that was not kept.
    fn restore(&self, kept: &mut Kept, value: usize, parameters: &[&[f32]]) {
        if kept.values[value].is_some() {
            return;
        }
        let step = &self.recording.graph.steps[value - 1];
        let (norm, relu) = match step.layer {
            Layer::NormRelu(norm) => {
                self.restore(kept, step.input, parameters);
                (norm, true)
            }
            Layer::Convolution(Convolution {
                norm: Some(norm),
                activation,
                ..
            }) => (norm, activation == Activation::Relu),
            _ => unreachable!("only results of batch normalisations are not kept"),
        };
        let note = &kept.notes[value - 1];
        let pixels = match step.layer {
            Layer::NormRelu(_) => kept.values[step.input].as_deref().expect("just restored"),
            _ => &note.normalised,
        };
        let mut out = self.pool.take(pixels.len());
        let moments = note.moments.as_ref().expect("kept by the forward pass");
        norm::normalise(&norm, parameters, moments, pixels, None, relu, &mut out);
        kept.values[value] = Some(out);
    }
}
