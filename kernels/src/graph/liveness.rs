//! How long the values of a network are needed.

use super::structure::{Convolution, Graph, Layer};
use crate::activation::Activation;

impl Graph {
    /// For each step, the values that it is the last to read, in their order. A value that nothing reads, as the
    /// logits, is in none of them.
    pub(crate) fn last_reads(&self) -> Vec<Vec<usize>> {
        let mut last = vec![None; self.shapes.len()];
        for (index, step) in self.steps.iter().enumerate() {
            step.reads().for_each(|value| last[value] = Some(index));
        }
        let mut values = vec![Vec::new(); self.steps.len()];
        for (value, index) in last.into_iter().enumerate() {
            if let Some(index) = index {
                values[index].push(value);
            }
        }
        values
    }

    /// Whether the gradient of the parameters reads each value: as a convolution's input, for its normalisation, or
    /// to tell where a ReLU was off.
    pub(crate) fn kept_for_gradient(&self) -> Vec<bool> {
        let mut kept = vec![false; self.shapes.len()];
        for (index, step) in self.steps.iter().enumerate() {
            match step.layer {
                Layer::Convolution(Convolution { activation, .. }) => {
                    kept[step.input] = true;
                    kept[index + 1] |= activation == Activation::Relu;
                }
                Layer::NormRelu(_) => {
                    kept[step.input] = true;
                    kept[index + 1] = true;
                }
                Layer::MaxPool(_) | Layer::MeanPerChannel | Layer::Dropout(_) => {}
            }
        }
        kept
    }
}
