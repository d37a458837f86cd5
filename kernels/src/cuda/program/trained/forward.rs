//! The forward pass of a network in training, written down.

use candle_core::{Result, bail};

use super::regions::{FACTORS, IMAGES, LOGITS, TENSORS, tensor};
use super::writer::{Kept, Note, Writer, weight_extent};
use crate::activation::Activation;
use crate::convolution::Geometry;
use crate::cuda::arena::Buffer;
use crate::cuda::launches::place;
use crate::cuda::machine::{self, Address, Extent, Form, Moments, Pass, Source};
use crate::cuda::program::batch::at;
use crate::graph::{Convolution, Layer, Norm, Parameter};

impl Writer<'_> {
    pub(super) fn forward(&mut self) -> Result<Kept> {
        let (graph, form) = (self.batch.graph, self.variant.form);
        let (last_reads, kept) = (graph.last_reads(), graph.kept_for_gradient());
        let mut values: Vec<Option<Buffer>> = vec![None; graph.shapes.len()];
        let mut notes = Vec::new();
        // Bytes of the factors so far.
        let mut factors = 0;
        let images = self.take(0);
        machine::enter(&self.launches, form, at(images), place(IMAGES, 0), self.batch.extent(0))?;
        values[0] = Some(images);
        for (index, step) in graph.steps.iter().enumerate() {
            let (input, output) = (step.input, index + 1);
            let value = |value: usize| at(values[value].expect("a value is computed before its use"));
            let x = value(input);
            let mut note = Note::default();
            let out = match step.layer {
                Layer::Convolution(convolution) => {
                    let residual = convolution.residual.map_or(0, value);
                    self.convolution(&convolution, output, [x, residual], &mut note)?
                }
                Layer::NormRelu(norm) => {
                    let (out, extent) = (self.take(output), self.batch.extent(output));
                    note.moments = Some(self.normalise(norm, at(out), [x, 0], extent, true)?);
                    out
                }
                Layer::MaxPool(size) => {
                    let numbers = self.batch.extent(output).len() as usize;
                    let (out, places) = (self.take(output), self.arena.take(numbers));
                    let windows = self.batch.windows(input, Some(size));
                    machine::max_pool(&self.launches, form, [at(out), at(places)], x, windows)?;
                    note.places = Some(places);
                    out
                }
                Layer::MeanPerChannel => {
                    let out = self.take(output);
                    machine::mean_pool(&self.launches, form, at(out), x, self.batch.windows(input, None))?;
                    out
                }
                Layer::Dropout(_) => self.dropout(output, x, &mut factors, &mut note)?,
            };
            notes.push(note);
            values[output] = Some(out);
            for &value in &last_reads[index] {
                if !kept[value] {
                    let value = values[value].take();
                    self.give(value);
                }
            }
        }
        let logits = values[graph.last()].expect("a network has a layer");
        let extent = self.batch.extent(graph.last());
        machine::leave(&self.launches, form, place(LOGITS, 0), at(logits), extent)?;
        Ok(Kept { values, notes })
    }

    /// A convolution and what follows it; a residual may be nowhere.
    fn convolution(
        &mut self,
        convolution: &Convolution,
        output: usize,
        [x, residual]: [Address; 2],
        note: &mut Note,
    ) -> Result<Buffer> {
        let (form, extent) = (self.variant.form, self.batch.extent(output));
        let relu = convolution.activation == Activation::Relu;
        note.weight = self.weight(convolution.weight, &convolution.geometry)?;
        let sums = self.take(output);
        self.convolve(convolution.geometry, Pass::Forward, [x, note.weight, at(sums)], false)?;
        let bias = convolution.bias.map_or(0, tensor);
        let Some(norm) = convolution.norm else {
            if bias != 0 || residual != 0 || relu {
                let operands = [at(sums), bias, residual];
                machine::finish(&self.launches, form, [at(sums), 0], operands, extent, relu)?;
            }
            return Ok(sums);
        };
        if bias != 0 {
            let operands = [at(sums), bias, 0];
            machine::finish(&self.launches, form, [at(sums), 0], operands, extent, false)?;
        }
        note.normalised = Some(sums);
        let out = self.take(output);
        note.moments = Some(self.normalise(norm, at(out), [at(sums), residual], extent, relu)?);
        Ok(out)
    }

    /// A dropout, whose factors come after those of the dropouts before it.
    fn dropout(&mut self, output: usize, x: Address, factors: &mut u64, note: &mut Note) -> Result<Buffer> {
        let (form, extent) = (self.variant.form, self.batch.extent(output));
        if extent.area != 1 && form.last {
            bail!("trained: a dropout over pixels needs channels first on a GPU");
        }
        let out = self.take(output);
        if self.variant.dropout {
            note.factors = place(FACTORS, *factors);
            *factors += 4 * u64::from(extent.len());
            machine::times(&self.launches, form, [at(out), x, note.factors], extent.len())?;
        } else {
            machine::add(&self.launches, form, at(out), x, extent.len(), false)?;
        }
        Ok(out)
    }

    /// A convolution's weights in the program's form.
    fn weight(&mut self, weight: Parameter, geometry: &Geometry) -> Result<Address> {
        let form = self.variant.form;
        if form == Form::default() {
            return Ok(tensor(weight));
        }
        let extent = weight_extent(geometry);
        let to = self.arena.take(extent.len() as usize * form.width());
        machine::enter(&self.launches, form, at(to), tensor(weight), extent)?;
        Ok(at(to))
    }

    /// A batch normalisation of x, with the other summand, and ReLU if asked; returns where its moments are kept.
    fn normalise(
        &mut self,
        norm: Norm,
        out: Address,
        [x, other]: [Address; 2],
        extent: Extent,
        relu: bool,
    ) -> Result<Moments> {
        if extent.batch * extent.area < 2 {
            bail!("batch_norm: a batch with one value per channel has no variance");
        }
        let form = self.variant.form;
        let channels = extent.channels as usize;
        let [mean, factor, scale] = [4, 4, 8].map(|width| at(self.arena.take(width * channels)));
        let moments = Moments { mean, factor, scale };
        let partial = self.arena.take(extent.partial_bytes(form));
        let running = TENSORS + self.batch.graph.parameters.len() + 2 * norm.running;
        let source = Source::Batch {
            partial: at(partial),
            running: self
                .variant
                .update
                .then_some([place(running, 0), place(running + 1, 0)]),
            momentum: norm.momentum,
        };
        let weight = tensor(norm.weight);
        machine::moments(&self.launches, form, moments, x, weight, source, norm.epsilon, extent)?;
        let operands = [x, tensor(norm.bias), other];
        machine::normalise(&self.launches, form, out, operands, moments, extent, relu)?;
        self.arena.give(partial);
        Ok(moments)
    }
}
