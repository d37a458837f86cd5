//! The forward pass of a frozen network as a list of launches.

use candle_core::Result;

use super::regions::{IMAGES, LOGITS, PARAMETERS};
use super::writer::{Writer, at_or_nowhere};
use crate::activation::Activation;
use crate::cuda::arena::Buffer;
use crate::cuda::launches::place;
use crate::cuda::machine::{self, Pass};
use crate::cuda::program::batch::at;
use crate::graph::{Layer, Step};

impl Writer<'_> {
    /// The forward pass. Returns, for each layer, where the signs of a ReLU or the places of maxima are kept.
    pub(super) fn forward(&mut self) -> Result<Vec<Option<Buffer>>> {
        let (graph, form) = (self.batch.graph, self.batch.form);
        let last_reads = graph.last_reads();
        let mut values: Vec<Option<Buffer>> = vec![None; graph.shapes.len()];
        let images = self.take(0);
        machine::enter(&self.launches, form, at(images), place(IMAGES, 0), self.batch.extent(0))?;
        values[0] = Some(images);
        let mut marks = Vec::new();
        for (index, &Step { input, layer }) in graph.steps.iter().enumerate() {
            let output = index + 1;
            let extent = self.batch.extent(output);
            let folded = self.parameters.folded[index];
            let shift = place(PARAMETERS, folded.shift);
            let out = self.take(output);
            let x = at(values[input].expect("a value is computed before its use"));
            let keeps = match layer {
                Layer::Convolution(convolution) => convolution.activation == Activation::Relu,
                Layer::NormRelu(_) | Layer::MaxPool(_) => true,
                Layer::MeanPerChannel | Layer::Dropout(_) => false,
            };
            let mark = keeps.then(|| self.arena.take(extent.len() as usize));
            let to = [at(out), at_or_nowhere(mark)];
            match layer {
                Layer::Convolution(convolution) => {
                    let relu = convolution.activation == Activation::Relu;
                    self.convolve(convolution.geometry, Pass::Forward, [x, at(out)], index, false)?;
                    let other = convolution.residual;
                    let other = other.map_or(0, |value| at(values[value].expect("computed before")));
                    machine::finish(&self.launches, form, to, [at(out), shift, other], extent, relu)?;
                }
                Layer::NormRelu(_) => {
                    let operands = [x, place(PARAMETERS, folded.weight), shift];
                    machine::scale_relu(&self.launches, form, to, operands, extent)?;
                }
                Layer::MaxPool(size) => {
                    let windows = self.batch.windows(input, Some(size));
                    machine::max_pool(&self.launches, form, to, x, windows)?;
                }
                Layer::MeanPerChannel => {
                    let windows = self.batch.windows(input, None);
                    machine::mean_pool(&self.launches, form, at(out), x, windows)?;
                }
                Layer::Dropout(_) => unreachable!("a network at rest has no dropout"),
            }
            marks.push(mark);
            values[output] = Some(out);
            for &value in &last_reads[index] {
                self.arena
                    .give(values[value].take().expect("a value that was still read"));
            }
        }
        let last = graph.last();
        let logits = values[last].expect("a network has a layer");
        machine::leave(
            &self.launches,
            form,
            place(LOGITS, 0),
            at(logits),
            self.batch.extent(last),
        )?;
        // Values that nothing reads, the logits among them.
        for buffer in values.into_iter().flatten() {
            self.arena.give(buffer);
        }
        Ok(marks)
    }
}
