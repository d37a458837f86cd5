//! The backward pass of a frozen network as a list of launches.

use candle_core::Result;

use super::regions::{IMAGE_GRADIENT, LOGIT_GRADIENT, PARAMETERS};
use super::writer::{Writer, at_or_nowhere};
use crate::activation::Activation;
use crate::cuda::arena::Buffer;
use crate::cuda::launches::place;
use crate::cuda::machine::{self, Pass, Target};
use crate::cuda::program::batch::at;
use crate::graph::{Layer, Step};

impl Writer<'_> {
    /// From the gradient of the logits to that of the images.
    pub(super) fn backward(&mut self, marks: &[Option<Buffer>]) -> Result<()> {
        let (graph, form) = (self.batch.graph, self.batch.form);
        let last = graph.last();
        let mut gradients: Vec<Option<Buffer>> = vec![None; graph.shapes.len()];
        let logits = self.take(last);
        machine::enter(
            &self.launches,
            form,
            at(logits),
            place(LOGIT_GRADIENT, 0),
            self.batch.extent(last),
        )?;
        gradients[last] = Some(logits);
        for (index, &Step { input, layer }) in graph.steps.iter().enumerate().rev() {
            let output = index + 1;
            // A value that nothing reads has no gradient.
            let Some(g) = gradients[output].take() else { continue };
            let (to, accumulate) = match gradients[input] {
                Some(buffer) => (buffer, true),
                None => (self.take(input), false),
            };
            gradients[input] = Some(to);
            let target = Target { at: at(to), accumulate };
            let mark = at_or_nowhere(marks[index]);
            let mut free = Some(g);
            match layer {
                Layer::Convolution(convolution) => {
                    let n = self.batch.extent(output).len();
                    if convolution.activation == Activation::Relu {
                        machine::mask(&self.launches, form, at(g), mark, n)?;
                    }
                    let images = [at(to), at(g)];
                    self.convolve(convolution.geometry, Pass::ToImages, images, index, accumulate)?;
                    if let Some(residual) = convolution.residual {
                        match gradients[residual] {
                            Some(sum) => machine::add(&self.launches, form, at(sum), at(g), n, true)?,
                            // This gradient's buffer becomes the residual's.
                            None => gradients[residual] = free.take(),
                        }
                    }
                }
                Layer::NormRelu(_) => {
                    let scale = place(PARAMETERS, self.parameters.folded[index].weight);
                    let (operands, extent) = ([at(g), scale, mark], self.batch.extent(output));
                    machine::scale_relu_gradient(&self.launches, form, at(to), operands, extent, accumulate)?;
                }
                Layer::MaxPool(size) => {
                    let windows = self.batch.windows(input, Some(size));
                    machine::max_pool_gradient(&self.launches, form, target, [mark, at(g)], windows)?;
                }
                Layer::MeanPerChannel => {
                    let windows = self.batch.windows(input, None);
                    machine::mean_pool_gradient(&self.launches, form, target, at(g), windows)?;
                }
                Layer::Dropout(_) => unreachable!("a network at rest has no dropout"),
            }
            if let Some(buffer) = free {
                self.arena.give(buffer);
            }
        }
        let images = gradients[0].expect("the first layer reads the images");
        machine::leave(
            &self.launches,
            form,
            place(IMAGE_GRADIENT, 0),
            at(images),
            self.batch.extent(0),
        )
    }
}
