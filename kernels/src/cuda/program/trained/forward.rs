//! The forward pass of a network in training, written down.

use candle_core::{Result, bail};

use super::{FACTORS, IMAGES, LOGITS, Layer, Norm, Parameter, Structure, TENSORS, WORK, Way};
use crate::convolution::Geometry;
use crate::cuda::arena::{Arena, Buffer};
use crate::cuda::machine::{self, Address, Convolve, Extent, Form, Machine, Moments, Pass, Source, Windows};
use crate::cuda::recording::{Recorder, place};

/// What the way back needs.
pub(super) struct Kept {
    /// The values that it reads.
    pub(super) values: Vec<Option<Buffer>>,
    pub(super) notes: Vec<Note>,
}

/// What it needs of one layer besides.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Note {
    /// Weights in the program's form.
    pub(super) weight: Address,
    /// What a convolution's normalisation got.
    pub(super) normalised: Option<Buffer>,
    pub(super) moments: Option<Moments>,
    /// Of maxima.
    pub(super) places: Option<Buffer>,
    /// A dropout's factors.
    pub(super) factors: Address,
}

pub(super) struct Writer<'a> {
    pub(super) structure: &'a Structure,
    pub(super) way: Way,
    pub(super) gradients: &'a [usize],
    /// Parameters whose gradient is written.
    pub(super) reached: Vec<bool>,
    pub(super) arena: Arena,
    pub(super) told: Recorder,
}

/// Where a buffer of the work memory lies.
pub(super) fn at(buffer: Buffer) -> Address {
    place(WORK, buffer.start)
}

pub(super) fn tensor(parameter: Parameter) -> Address {
    place(TENSORS + parameter, 0)
}

impl Writer<'_> {
    /// Value `id` of the whole batch.
    pub(super) fn extent(&self, id: usize) -> Extent {
        let [channels, height, width] = self.structure.shapes[id];
        Extent {
            batch: self.way.batch as u32,
            channels: channels as u32,
            area: (height * width) as u32,
        }
    }

    pub(super) fn take(&mut self, id: usize) -> Buffer {
        let bytes = self.extent(id).len() as usize * self.way.form.width();
        self.arena.take(bytes)
    }

    pub(super) fn give(&mut self, buffer: Option<Buffer>) {
        if let Some(buffer) = buffer {
            self.arena.give(buffer);
        }
    }

    pub(super) fn windows(&self, input: usize, size: Option<usize>) -> Windows {
        let [channels, height, width] = self.structure.shapes[input];
        let images = [self.way.batch, channels, height, width];
        match size {
            Some(size) => Windows::square(images, size),
            None => Windows::whole(images),
        }
    }

    /// The last layer that reads each value in the forward pass.
    fn last_uses(&self) -> Vec<usize> {
        let mut last = vec![usize::MAX; self.structure.shapes.len()];
        for (index, (input, layer)) in self.structure.layers.iter().enumerate() {
            last[*input] = index;
            if let Layer::Convolution {
                residual: Some(residual),
                ..
            } = layer
            {
                last[*residual] = index;
            }
        }
        last
    }

    /// Whether the way back reads each value: as a convolution's input, for its normalisation, or to tell where a ReLU
    /// was off.
    fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.structure.shapes.len()];
        for (index, (input, layer)) in self.structure.layers.iter().enumerate() {
            match layer {
                Layer::Convolution { relu, .. } => {
                    needed[*input] = true;
                    needed[index + 1] |= *relu;
                }
                Layer::NormRelu(_) => {
                    needed[*input] = true;
                    needed[index + 1] = true;
                }
                Layer::MaxPool(_) | Layer::Mean | Layer::Dropout => {}
            }
        }
        needed
    }

    pub(super) fn forward(&mut self) -> Result<Kept> {
        let (structure, form) = (self.structure, self.way.form);
        let (last_uses, needed) = (self.last_uses(), self.needed());
        let mut values: Vec<Option<Buffer>> = vec![None; structure.shapes.len()];
        let mut notes = Vec::new();
        let mut factors = 0;
        let images = self.take(0);
        machine::enter(&self.told, form, at(images), place(IMAGES, 0), self.extent(0))?;
        values[0] = Some(images);
        for (index, &(input, layer)) in structure.layers.iter().enumerate() {
            let extent = self.extent(index + 1);
            let x = at(values[input].expect("a value is computed before its use"));
            let mut note = Note::default();
            let out = match layer {
                Layer::Convolution {
                    geometry,
                    weight,
                    bias,
                    norm,
                    residual,
                    relu,
                } => {
                    note.weight = self.weight(weight, &geometry)?;
                    let sums = self.take(index + 1);
                    self.convolve(geometry, Pass::Forward, [x, note.weight, at(sums)], false)?;
                    let bias = bias.map_or(0, tensor);
                    let other = residual.map_or(0, |it| at(values[it].expect("computed before")));
                    match norm {
                        None => {
                            let operands = [at(sums), bias, other];
                            if bias != 0 || other != 0 || relu {
                                machine::finish(&self.told, form, [at(sums), 0], operands, extent, relu)?;
                            }
                            sums
                        }
                        Some(norm) => {
                            if bias != 0 {
                                let operands = [at(sums), bias, 0];
                                machine::finish(&self.told, form, [at(sums), 0], operands, extent, false)?;
                            }
                            note.normalised = Some(sums);
                            let out = self.take(index + 1);
                            note.moments = Some(self.normalise(norm, at(out), [at(sums), other], extent, relu)?);
                            out
                        }
                    }
                }
                Layer::NormRelu(norm) => {
                    let out = self.take(index + 1);
                    note.moments = Some(self.normalise(norm, at(out), [x, 0], extent, true)?);
                    out
                }
                Layer::MaxPool(size) => {
                    let (out, places) = (self.take(index + 1), self.arena.take(extent.len() as usize));
                    let windows = self.windows(input, Some(size));
                    machine::max_pool(&self.told, form, [at(out), at(places)], x, windows)?;
                    note.places = Some(places);
                    out
                }
                Layer::Mean => {
                    let out = self.take(index + 1);
                    machine::mean_pool(&self.told, form, at(out), x, self.windows(input, None))?;
                    out
                }
                Layer::Dropout => {
                    if extent.area != 1 && form.last {
                        bail!("trained: a dropout over pixels needs channels first on a GPU");
                    }
                    let out = self.take(index + 1);
                    if self.way.dropout {
                        note.factors = place(FACTORS, factors);
                        factors += 4 * u64::from(extent.len());
                        machine::times(&self.told, form, [at(out), x, note.factors], extent.len())?;
                    } else {
                        machine::add(&self.told, form, at(out), x, extent.len(), false)?;
                    }
                    out
                }
            };
            notes.push(note);
            values[index + 1] = Some(out);
            for (id, &last) in last_uses.iter().enumerate() {
                if last == index && !needed[id] {
                    let value = values[id].take();
                    self.give(value);
                }
            }
        }
        let last = structure.shapes.len() - 1;
        let logits = values[last].expect("a network has a layer");
        machine::leave(&self.told, form, place(LOGITS, 0), at(logits), self.extent(last))?;
        Ok(Kept { values, notes })
    }

    /// A convolution's weights in the program's form.
    fn weight(&mut self, weight: Parameter, geometry: &Geometry) -> Result<Address> {
        let form = self.way.form;
        if form == Form::default() {
            return Ok(tensor(weight));
        }
        let extent = weight_extent(geometry);
        let to = self.arena.take(extent.len() as usize * form.width());
        machine::enter(&self.told, form, at(to), tensor(weight), extent)?;
        Ok(at(to))
    }

    pub(super) fn convolve(&self, geometry: Geometry, pass: Pass, at: [Address; 3], accumulate: bool) -> Result<()> {
        let convolve = Convolve {
            geometry: Geometry {
                batch: self.way.batch,
                ..geometry
            },
            form: self.way.form,
        };
        self.told.convolve(&convolve, pass, at, accumulate)
    }

    /// A batch normalisation of x, with the other summand and perhaps ReLU; returns where its moments are kept.
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
        let form = self.way.form;
        let channels = extent.channels as usize;
        let [mean, factor, scale] = [4, 4, 8].map(|width| at(self.arena.take(width * channels)));
        let moments = Moments { mean, factor, scale };
        let partial = self.arena.take(extent.partial_bytes(form));
        let running = TENSORS + self.structure.parameters.len() + 2 * norm.which;
        let source = Source::Batch {
            partial: at(partial),
            running: self.way.update.then_some([place(running, 0), place(running + 1, 0)]),
            momentum: norm.momentum,
        };
        let weight = tensor(norm.weight);
        machine::moments(&self.told, form, moments, x, weight, source, norm.epsilon, extent)?;
        let operands = [x, tensor(norm.bias), other];
        machine::normalise(&self.told, form, out, operands, moments, extent, relu)?;
        self.arena.give(partial);
        Ok(moments)
    }
}

/// Weights `[K, C, R, S]` as images of R·S pixels.
pub(super) fn weight_extent(geometry: &Geometry) -> Extent {
    Extent {
        batch: geometry.outputs as u32,
        channels: geometry.inputs as u32,
        area: geometry.kernel_pixels() as u32,
    }
}
