//! The way back through a network in training, written down.

use candle_core::Result;

use super::forward::{Kept, Writer, at, tensor, weight_extent};
use super::{GRADIENTS, IMAGE_GRADIENT, LOGIT_GRADIENT, Layer, Norm, Parameter};
use crate::convolution::Geometry;
use crate::cuda::arena::Buffer;
use crate::cuda::machine::{self, Address, Form, GradientSums, Normalised, Pass, Target};
use crate::cuda::recording::place;

impl Writer<'_> {
    pub(super) fn backward(&mut self, mut kept: Kept) -> Result<()> {
        let (structure, form) = (self.structure, self.way.form);
        let last = structure.shapes.len() - 1;
        let mut gradients: Vec<Option<Buffer>> = vec![None; structure.shapes.len()];
        let logits = self.take(last);
        machine::enter(
            &self.told,
            form,
            at(logits),
            place(LOGIT_GRADIENT, 0),
            self.extent(last),
        )?;
        gradients[last] = Some(logits);
        for (index, &(input, layer)) in structure.layers.iter().enumerate().rev() {
            let (output, note) = (index + 1, kept.notes[index]);
            // A value that nothing reads has no gradient.
            if let Some(g) = gradients[output].take() {
                let left = self.layer_back(&kept, (index, layer), g, &mut gradients)?;
                self.give(left);
            }
            // Whoever reads this value has had its turn.
            for buffer in [kept.values[output].take(), note.normalised, note.places] {
                self.give(buffer);
            }
            debug_assert!(input < output);
        }
        if self.way.to_images {
            let images = gradients[0].expect("the first layer reads the images");
            machine::leave(&self.told, form, place(IMAGE_GRADIENT, 0), at(images), self.extent(0))?;
        }
        Ok(())
    }

    /// From the gradient of one layer's result to that of its input, its residual and its parameters. Returns the
    /// gradient's buffer unless somebody took it over.
    fn layer_back(
        &mut self,
        kept: &Kept,
        (index, layer): (usize, Layer),
        g: Buffer,
        gradients: &mut [Option<Buffer>],
    ) -> Result<Option<Buffer>> {
        let form = self.way.form;
        let (output, note) = (index + 1, kept.notes[index]);
        let input = self.structure.layers[index].0;
        let extent = self.extent(output);
        let n = extent.len();
        let value = |id: usize| at(kept.values[id].expect("kept by the forward pass"));
        let wanted = |id: usize| id > 0 || self.way.to_images;
        let to_input = wanted(input);
        match layer {
            Layer::Convolution {
                geometry,
                weight,
                bias,
                norm,
                residual,
                relu,
            } => {
                let residual = residual.filter(|&it| wanted(it));
                let y = if relu { value(output) } else { 0 };
                match norm {
                    Some(norm) => {
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
                        self.norm_back(norm, [Target::new(at(g)), other], &of, at(g))?;
                    }
                    None if relu => machine::relu_gradient(&self.told, form, at(g), [y, at(g)], n)?,
                    None => {}
                }
                if let Some(bias) = bias {
                    let (to, partial) = (self.gradient(bias), self.arena.take(extent.partial_bytes(form)));
                    machine::channel_sums(&self.told, form, to, at(g), at(partial), extent)?;
                    self.arena.give(partial);
                }
                self.weight_back(weight, geometry, [value(input), at(g)])?;
                if to_input {
                    let to = self.target(input, gradients);
                    self.convolve(geometry, Pass::ToImages, [to.at, note.weight, at(g)], to.accumulate)?;
                }
                match residual.filter(|_| norm.is_none()) {
                    None => Ok(Some(g)),
                    Some(residual) => match gradients[residual] {
                        Some(sum) => {
                            machine::add(&self.told, form, at(sum), at(g), n, true)?;
                            Ok(Some(g))
                        }
                        None => {
                            gradients[residual] = Some(g);
                            Ok(None)
                        }
                    },
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
            Layer::MaxPool(_) | Layer::Mean if !to_input => Ok(Some(g)),
            Layer::MaxPool(size) => {
                let to = self.target(input, gradients);
                let places = at(note.places.expect("kept by the forward pass"));
                let windows = self.windows(input, Some(size));
                machine::max_pool_gradient(&self.told, form, to, [places, at(g)], windows)?;
                Ok(Some(g))
            }
            Layer::Mean => {
                let to = self.target(input, gradients);
                machine::mean_pool_gradient(&self.told, form, to, at(g), self.windows(input, None))?;
                Ok(Some(g))
            }
            Layer::Dropout => {
                if note.factors != 0 {
                    machine::times(&self.told, form, [at(g), at(g), note.factors], n)?;
                }
                if let Some(sum) = gradients[input] {
                    machine::add(&self.told, form, at(sum), at(g), n, true)?;
                }
                Ok(hand_over(g, &mut gradients[input]))
            }
        }
    }

    /// Where a parameter's gradient goes.
    fn gradient(&mut self, parameter: Parameter) -> Address {
        self.reached[parameter] = true;
        place(GRADIENTS, 4 * self.gradients[parameter] as u64)
    }

    /// Where a value's gradient goes: to what other readers sent, if they did.
    fn target(&mut self, id: usize, gradients: &mut [Option<Buffer>]) -> Target {
        let sum = gradients[id];
        let to = sum.unwrap_or_else(|| self.take(id));
        gradients[id] = Some(to);
        Target {
            at: at(to),
            accumulate: sum.is_some(),
        }
    }

    /// The gradients of a batch normalisation.
    fn norm_back(&mut self, norm: Norm, to: [Target; 2], of: &Normalised, g: Address) -> Result<()> {
        let form = self.way.form;
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
        machine::norm_gradient_sums(&self.told, form, of, g, sums)?;
        machine::norm_gradient(&self.told, form, to, of, g, Some(sums))?;
        rooms.into_iter().for_each(|room| self.arena.give(room));
        Ok(())
    }

    /// The gradient of a convolution's weights, from its input and its result's gradient.
    fn weight_back(&mut self, weight: Parameter, geometry: Geometry, [x, g]: [Address; 2]) -> Result<()> {
        let form = self.way.form;
        let to = self.gradient(weight);
        if form == Form::default() {
            return self.convolve(geometry, Pass::ToWeights, [x, to, g], false);
        }
        let extent = weight_extent(&geometry);
        let room = self.arena.take(extent.len() as usize * form.width());
        self.convolve(geometry, Pass::ToWeights, [x, at(room), g], false)?;
        machine::leave(&self.told, form, to, at(room), extent)?;
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
