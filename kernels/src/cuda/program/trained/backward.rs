//! The way back through a network in training, written down.

use candle_core::Result;

use super::regions::{GRADIENTS, IMAGE_GRADIENT, LOGIT_GRADIENT, tensor};
use super::writer::{Kept, Note, Writer, weight_extent};
use crate::activation::Activation;
use crate::convolution::Geometry;
use crate::cuda::arena::Buffer;
use crate::cuda::launches::place;
use crate::cuda::machine::{self, Address, Extent, Form, GradientSums, Normalised, Pass, Target};
use crate::cuda::program::batch::at;
use crate::graph::{Convolution, Layer, Norm, Parameter, Step};

impl Writer<'_> {
    pub(super) fn backward(&mut self, mut kept: Kept) -> Result<()> {
        let (graph, form) = (self.batch.graph, self.variant.form);
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
        for index in (0..graph.steps.len()).rev() {
            let (output, note) = (index + 1, kept.notes[index]);
            // A value that nothing reads has no gradient.
            if let Some(g) = gradients[output].take() {
                let left = self.step(&kept, index, g, &mut gradients)?;
                self.give(left);
            }
            // Every step that reads this value has been written.
            for buffer in [kept.values[output].take(), note.normalised, note.places] {
                self.give(buffer);
            }
        }
        if self.variant.to_images {
            let images = gradients[0].expect("the first layer reads the images");
            machine::leave(
                &self.launches,
                form,
                place(IMAGE_GRADIENT, 0),
                at(images),
                self.batch.extent(0),
            )?;
        }
        Ok(())
    }

    /// From the gradient of one step's result to that of its input, its residual and its parameters. Returns the
    /// gradient's buffer unless a gradient took it over.
    fn step(
        &mut self,
        kept: &Kept,
        index: usize,
        g: Buffer,
        gradients: &mut [Option<Buffer>],
    ) -> Result<Option<Buffer>> {
        let form = self.variant.form;
        let (output, note) = (index + 1, kept.notes[index]);
        let Step { input, layer } = self.batch.graph.steps[index];
        let extent = self.batch.extent(output);
        let value = |value: usize| at(kept.values[value].expect("kept by the forward pass"));
        let to_input = self.wanted(input);
        match layer {
            Layer::Convolution(convolution) => {
                let relu = convolution.activation == Activation::Relu;
                let y = if relu { value(output) } else { 0 };
                let residual = convolution.residual.filter(|&residual| self.wanted(residual));
                self.before_convolution(&convolution, residual, &note, [y, at(g)], extent, gradients)?;
                self.weight_back(convolution.weight, convolution.geometry, [value(input), at(g)])?;
                if to_input {
                    let to = self.target(input, gradients);
                    let operands = [to.at, note.weight, at(g)];
                    self.convolve(convolution.geometry, Pass::ToImages, operands, to.accumulate)?;
                }
                match residual.filter(|_| convolution.norm.is_none()) {
                    Some(residual) => self.pass_on(g, extent, &mut gradients[residual]),
                    None => Ok(Some(g)),
                }
            }
            Layer::NormRelu(norm) => {
                let of = Normalised {
                    x: value(input),
                    y: value(output),
                    moments: note.moments.expect("kept by the forward pass"),
                    weight: tensor(norm.weight),
                    of_batch: true,
                    extent,
                };
                let sum = gradients[input];
                let to = Target {
                    at: at(sum.unwrap_or(g)),
                    accumulate: sum.is_some(),
                };
                self.norm_back(norm, [to, Target::new(0)], &of, at(g))?;
                Ok(hand_over(g, &mut gradients[input]))
            }
            Layer::MaxPool(_) | Layer::MeanPerChannel if !to_input => Ok(Some(g)),
            Layer::MaxPool(size) => {
                let to = self.target(input, gradients);
                let places = at(note.places.expect("kept by the forward pass"));
                let windows = self.batch.windows(input, Some(size));
                machine::max_pool_gradient(&self.launches, form, to, [places, at(g)], windows)?;
                Ok(Some(g))
            }
            Layer::MeanPerChannel => {
                let to = self.target(input, gradients);
                machine::mean_pool_gradient(&self.launches, form, to, at(g), self.batch.windows(input, None))?;
                Ok(Some(g))
            }
            Layer::Dropout(_) => {
                if note.factors != 0 {
                    machine::times(&self.launches, form, [at(g), at(g), note.factors], extent.len())?;
                }
                self.pass_on(g, extent, &mut gradients[input])
            }
        }
    }

    /// Whether the gradient of a value is wanted.
    fn wanted(&self, value: usize) -> bool {
        value > 0 || self.variant.to_images
    }

    /// From the gradient of a convolution's result to that of its sums, in place: back through activation, batch
    /// normalisation with its residual, and bias. A residual without a normalisation is left to the caller.
    fn before_convolution(
        &mut self,
        convolution: &Convolution,
        residual: Option<usize>,
        note: &Note,
        [y, g]: [Address; 2],
        extent: Extent,
        gradients: &mut [Option<Buffer>],
    ) -> Result<()> {
        let form = self.variant.form;
        if let Some(norm) = convolution.norm {
            let of = Normalised {
                x: at(note.normalised.expect("kept by the forward pass")),
                y,
                moments: note.moments.expect("kept by the forward pass"),
                weight: tensor(norm.weight),
                of_batch: true,
                extent,
            };
            let other = match residual {
                Some(residual) => self.target(residual, gradients),
                None => Target::new(0),
            };
            self.norm_back(norm, [Target::new(g), other], &of, g)?;
        } else if y != 0 {
            machine::relu_gradient(&self.launches, form, g, [y, g], extent.len())?;
        }
        if let Some(bias) = convolution.bias {
            let (to, partial) = (self.gradient(bias), self.arena.take(extent.partial_bytes(form)));
            machine::channel_sums(&self.launches, form, to, g, at(partial), extent)?;
            self.arena.give(partial);
        }
        Ok(())
    }

    /// Adds `g` to a value's gradient, or makes it that gradient where there is none yet. Returns its buffer if it is
    /// free now.
    fn pass_on(&self, g: Buffer, extent: Extent, gradient: &mut Option<Buffer>) -> Result<Option<Buffer>> {
        if let Some(sum) = *gradient {
            machine::add(&self.launches, self.variant.form, at(sum), at(g), extent.len(), true)?;
        }
        Ok(hand_over(g, gradient))
    }

    /// Where a parameter's gradient goes.
    fn gradient(&mut self, parameter: Parameter) -> Address {
        self.reached[parameter] = true;
        place(GRADIENTS, 4 * self.gradients[parameter] as u64)
    }

    /// Where a value's gradient goes: added to that of other readers, if there is one.
    fn target(&mut self, value: usize, gradients: &mut [Option<Buffer>]) -> Target {
        let sum = gradients[value];
        let to = sum.unwrap_or_else(|| self.take(value));
        gradients[value] = Some(to);
        Target {
            at: at(to),
            accumulate: sum.is_some(),
        }
    }

    /// The gradients of a batch normalisation.
    fn norm_back(&mut self, norm: Norm, to: [Target; 2], of: &Normalised, g: Address) -> Result<()> {
        let form = self.variant.form;
        let channels = of.extent.channels as usize;
        let rooms = [of.extent.partial_bytes(form), 4 * channels, 4 * channels].map(|bytes| self.arena.take(bytes));
        let [partial, slope, offset] = rooms.map(at);
        let sums = GradientSums {
            partial,
            to_weight: self.gradient(norm.weight),
            to_bias: self.gradient(norm.bias),
            slope,
            offset,
        };
        machine::norm_gradient_sums(&self.launches, form, of, g, sums)?;
        machine::norm_gradient(&self.launches, form, to, of, g, Some(sums))?;
        rooms.into_iter().for_each(|room| self.arena.give(room));
        Ok(())
    }

    /// The gradient of a convolution's weights, from its input and its result's gradient.
    fn weight_back(&mut self, weight: Parameter, geometry: Geometry, [x, g]: [Address; 2]) -> Result<()> {
        let form = self.variant.form;
        let to = self.gradient(weight);
        if form == Form::default() {
            return self.convolve(geometry, Pass::ToWeights, [x, to, g], false);
        }
        let extent = weight_extent(&geometry);
        let room = self.arena.take(extent.len() as usize * form.width());
        self.convolve(geometry, Pass::ToWeights, [x, at(room), g], false)?;
        machine::leave(&self.launches, form, to, at(room), extent)?;
        self.arena.give(room);
        Ok(())
    }
}

/// Makes `g` the gradient of a value that has none yet; else returns its buffer.
fn hand_over(g: Buffer, gradient: &mut Option<Buffer>) -> Option<Buffer> {
    match gradient {
        Some(_) => Some(g),
        None => {
            *gradient = Some(g);
            None
        }
    }
}
