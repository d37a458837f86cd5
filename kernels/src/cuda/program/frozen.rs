//! A frozen network as a list of launches: buffers laid out once, parameters folded in place, then forward pass,
//! backward pass and attack step without a decision left.

use candle_core::{Result, bail};

use crate::ascent::Loss;
use crate::convolution::Geometry;
use crate::cuda::arena::{Arena, Buffer};
use crate::cuda::machine::{self, Address, Constants, Convolve, Extent, Form, Machine, Pass, Target, Windows, count};
use crate::cuda::recording::{Recorder, Recording, place};

/// What a network is made of, without its numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Structure {
    /// Channels, height and width of every value; the first is the image, the last the logits.
    pub(crate) shapes: Vec<[usize; 3]>,
    /// For every further value: what it is made from, and how.
    pub(crate) layers: Vec<(usize, Layer)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Layer {
    Convolution {
        /// Of one image.
        geometry: Geometry,
        residual: Option<usize>,
        relu: bool,
    },
    /// max(scale · x + shift, 0).
    NormRelu,
    MaxPool(usize),
    Mean,
}

/// Where the numbers of one layer lie, each or nowhere, all f32.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Source {
    pub(crate) weight: Address,
    pub(crate) bias: Address,
    pub(crate) norm: Constants,
}

/// Where folded parameters lie, from the parameters' start.
#[derive(Debug, Clone, Copy, Default)]
struct Folded {
    /// Weights, or the scale of a norm.
    weight: u64,
    /// Bias, or the shift of a norm.
    shift: u64,
}

/// Parameters of a structure in one form: shared by programs of any batch.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    folded: Vec<Folded>,
    pub(crate) bytes: u64,
}

impl Parameters {
    pub(crate) fn new(structure: &Structure, form: Form) -> Self {
        let mut arena = Arena::default();
        let mut folded = Vec::new();
        for (index, (_, layer)) in structure.layers.iter().enumerate() {
            let channels = structure.shapes[index + 1][0];
            let weight = match layer {
                Layer::Convolution { geometry, .. } => geometry.outputs * geometry.patch() * form.width(),
                Layer::NormRelu => channels * 4,
                Layer::MaxPool(_) | Layer::Mean => {
                    folded.push(Folded::default());
                    continue;
                }
            };
            folded.push(Folded {
                weight: arena.take(weight).start,
                shift: arena.take(channels * 4).start,
            });
        }
        Self {
            folded,
            bytes: arena.end(),
        }
    }

    /// Folds batch normalisation into every convolution and puts all numbers in their place.
    pub(crate) fn fill(
        &self,
        machine: &impl Machine,
        structure: &Structure,
        form: Form,
        sources: &[Source],
        base: Address,
    ) -> Result<()> {
        for (index, (folded, source)) in self.folded.iter().zip(sources).enumerate() {
            let channels = structure.shapes[index + 1][0] as u32;
            let [weight, shift] = [base + folded.weight, base + folded.shift];
            let scale = match &structure.layers[index].1 {
                Layer::Convolution { geometry, .. } => {
                    machine::fold(machine, form, weight, source.weight, source.norm, geometry)?;
                    0
                }
                Layer::NormRelu => weight,
                Layer::MaxPool(_) | Layer::Mean => continue,
            };
            machine::fold_norm(machine, [scale, shift], source.bias, source.norm, channels)?;
        }
        Ok(())
    }
}

// The regions of a program. All but the first two hold f32 tensors in Candle's order.
const WORK: usize = 0;
const PARAMETERS: usize = 1;
const IMAGES: usize = 2;
const LOGITS: usize = 3;
const LOGIT_GRADIENT: usize = 4;
const IMAGE_GRADIENT: usize = 5;

/// Where a run of a program finds everything.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bases {
    pub(crate) work: Address,
    pub(crate) parameters: Address,
    pub(crate) images: Address,
    pub(crate) logits: Address,
    pub(crate) logit_gradient: Address,
    pub(crate) image_gradient: Address,
}

impl Bases {
    /// By region.
    fn starts(&self) -> [Address; 6] {
        let mut starts = [0; 6];
        starts[WORK] = self.work;
        starts[PARAMETERS] = self.parameters;
        starts[IMAGES] = self.images;
        starts[LOGITS] = self.logits;
        starts[LOGIT_GRADIENT] = self.logit_gradient;
        starts[IMAGE_GRADIENT] = self.image_gradient;
        starts
    }
}

/// A frozen network for batches of one size.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    forward: Recording,
    backward: Recording,
    /// Bytes of work memory.
    pub(crate) work: u64,
    pub(crate) batch: u32,
    pub(crate) image_len: u32,
    pub(crate) classes: u32,
}

impl Program {
    pub(crate) fn new(structure: &Structure, parameters: &Parameters, form: Form, batch: usize) -> Result<Self> {
        for shape in &structure.shapes {
            count(batch * shape.iter().product::<usize>())?;
        }
        let last = structure.shapes.len() - 1;
        let [classes, 1, 1] = structure.shapes[last] else {
            bail!("frozen: logits {:?} are no vector", structure.shapes[last]);
        };
        let mut writer = Writer {
            structure,
            parameters,
            form,
            batch,
            arena: Arena::default(),
            told: Recorder::default(),
        };
        let marks = writer.forward()?;
        let forward = writer.told.take();
        writer.backward(&marks)?;
        Ok(Self {
            forward,
            backward: writer.told.take(),
            work: writer.arena.end(),
            batch: batch as u32,
            image_len: structure.shapes[0].iter().product::<usize>() as u32,
            classes: classes as u32,
        })
    }

    pub(crate) fn forward(&self, machine: &impl Machine, bases: &Bases) -> Result<()> {
        self.forward.play(machine, &bases.starts())
    }

    /// From the logits' gradient to the images', of the last forward pass.
    pub(crate) fn backward(&self, machine: &impl Machine, bases: &Bases) -> Result<()> {
        self.backward.play(machine, &bases.starts())
    }

    /// One step of an attack, in place.
    pub(crate) fn attack_step(&self, machine: &impl Machine, bases: &Bases, step: &AttackStep) -> Result<()> {
        let rows = [self.batch, self.classes];
        let n = self.batch * self.image_len;
        self.forward(machine, bases)?;
        let logits = [bases.logits, step.labels, step.clean];
        machine::loss_gradient(machine, bases.logit_gradient, logits, step.loss, rows)?;
        self.backward(machine, bases)?;
        machine::flag_zero(machine, step.stalled, bases.image_gradient, self.batch, self.image_len)?;
        let operands = [bases.images, bases.image_gradient, step.lower, step.upper];
        machine::sign_step(machine, bases.images, operands, step.length, n)
    }
}

/// What an attack step reads beside the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AttackStep {
    pub(crate) labels: Address,
    pub(crate) clean: Address,
    pub(crate) lower: Address,
    pub(crate) upper: Address,
    pub(crate) stalled: Address,
    pub(crate) loss: Loss,
    pub(crate) length: f32,
}

/// Writes the launches of one program.
struct Writer<'a> {
    structure: &'a Structure,
    parameters: &'a Parameters,
    form: Form,
    batch: usize,
    arena: Arena,
    told: Recorder,
}

/// Where a buffer of the work memory lies.
fn at(buffer: Buffer) -> Address {
    place(WORK, buffer.start)
}

fn at_or_nowhere(buffer: Option<Buffer>) -> Address {
    buffer.map_or(0, at)
}

impl Writer<'_> {
    /// Value `id` of the whole batch.
    fn extent(&self, id: usize) -> Extent {
        let [channels, height, width] = self.structure.shapes[id];
        Extent {
            batch: self.batch as u32,
            channels: channels as u32,
            area: (height * width) as u32,
        }
    }

    fn take(&mut self, id: usize) -> Buffer {
        let bytes = self.extent(id).len() as usize * self.form.width();
        self.arena.take(bytes)
    }

    fn windows(&self, input: usize, layer: Layer) -> Windows {
        let [channels, height, width] = self.structure.shapes[input];
        let images = [self.batch, channels, height, width];
        match layer {
            Layer::MaxPool(size) => Windows::square(images, size),
            _ => Windows::whole(images),
        }
    }

    /// The last layer that reads each value.
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

    /// The forward pass. Returns, for each layer, where the signs of a ReLU or the places of maxima are kept.
    fn forward(&mut self) -> Result<Vec<Option<Buffer>>> {
        let (structure, form) = (self.structure, self.form);
        let last_uses = self.last_uses();
        let mut values: Vec<Option<Buffer>> = vec![None; structure.shapes.len()];
        let images = self.take(0);
        machine::enter(&self.told, form, at(images), place(IMAGES, 0), self.extent(0))?;
        values[0] = Some(images);
        let mut marks = Vec::new();
        for (index, &(input, layer)) in structure.layers.iter().enumerate() {
            let output = index + 1;
            let extent = self.extent(output);
            let folded = self.parameters.folded[index];
            let shift = place(PARAMETERS, folded.shift);
            let out = self.take(output);
            let x = at(values[input].expect("a value is computed before its use"));
            let keeps = match layer {
                Layer::Convolution { relu, .. } => relu,
                Layer::NormRelu | Layer::MaxPool(_) => true,
                Layer::Mean => false,
            };
            let mark = keeps.then(|| self.arena.take(extent.len() as usize));
            let to = [at(out), at_or_nowhere(mark)];
            match layer {
                Layer::Convolution {
                    geometry,
                    residual,
                    relu,
                } => {
                    self.convolve(geometry, Pass::Forward, [x, at(out)], index, false)?;
                    let other = residual.map_or(0, |it| at(values[it].expect("computed before")));
                    machine::finish(&self.told, form, to, [at(out), shift, other], extent, relu)?;
                }
                Layer::NormRelu => {
                    let operands = [x, place(PARAMETERS, folded.weight), shift];
                    machine::scale_relu(&self.told, form, to, operands, extent)?;
                }
                Layer::MaxPool(_) => machine::max_pool(&self.told, form, to, x, self.windows(input, layer))?,
                Layer::Mean => machine::mean_pool(&self.told, form, at(out), x, self.windows(input, layer))?,
            }
            marks.push(mark);
            values[output] = Some(out);
            for (id, &last) in last_uses.iter().enumerate() {
                if last == index
                    && let Some(buffer) = values[id].take()
                {
                    self.arena.give(buffer);
                }
            }
        }
        let last = structure.shapes.len() - 1;
        let logits = values[last].expect("a network has a layer");
        machine::leave(&self.told, form, place(LOGITS, 0), at(logits), self.extent(last))?;
        // Values that nobody reads, the logits among them.
        for buffer in values.into_iter().flatten() {
            self.arena.give(buffer);
        }
        Ok(marks)
    }

    /// A convolution between images and result.
    fn convolve(
        &self,
        geometry: Geometry,
        pass: Pass,
        [images, result]: [Address; 2],
        index: usize,
        accumulate: bool,
    ) -> Result<()> {
        let convolve = Convolve {
            geometry: Geometry {
                batch: self.batch,
                ..geometry
            },
            form: self.form,
        };
        let weights = place(PARAMETERS, self.parameters.folded[index].weight);
        self.told
            .convolve(&convolve, pass, [images, weights, result], accumulate)
    }

    /// The backward pass.
    fn backward(&mut self, marks: &[Option<Buffer>]) -> Result<()> {
        let (structure, form) = (self.structure, self.form);
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
                Layer::Convolution {
                    geometry,
                    residual,
                    relu,
                } => {
                    let n = self.extent(output).len();
                    if relu {
                        machine::mask(&self.told, form, at(g), mark, n)?;
                    }
                    self.convolve(geometry, Pass::ToImages, [at(to), at(g)], index, accumulate)?;
                    if let Some(residual) = residual {
                        match gradients[residual] {
                            Some(sum) => machine::add(&self.told, form, at(sum), at(g), n, true)?,
                            // The gradient's own buffer goes on.
                            None => gradients[residual] = free.take(),
                        }
                    }
                }
                Layer::NormRelu => {
                    let scale = place(PARAMETERS, self.parameters.folded[index].weight);
                    let (operands, extent) = ([at(g), scale, mark], self.extent(output));
                    machine::scale_relu_gradient(&self.told, form, at(to), operands, extent, accumulate)?;
                }
                Layer::MaxPool(_) => {
                    let windows = self.windows(input, layer);
                    machine::max_pool_gradient(&self.told, form, target, [mark, at(g)], windows)?;
                }
                Layer::Mean => {
                    machine::mean_pool_gradient(&self.told, form, target, at(g), self.windows(input, layer))?;
                }
            }
            if let Some(buffer) = free {
                self.arena.give(buffer);
            }
        }
        let images = gradients[0].expect("the first layer reads the images");
        machine::leave(&self.told, form, place(IMAGE_GRADIENT, 0), at(images), self.extent(0))
    }
}

/// Bytes that the images, gradients and bounds of an attack take, and where each lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Staging {
    pub(crate) images: u64,
    pub(crate) image_gradient: u64,
    pub(crate) lower: u64,
    pub(crate) upper: u64,
    pub(crate) logits: u64,
    pub(crate) logit_gradient: u64,
    pub(crate) clean: u64,
    pub(crate) labels: u64,
    pub(crate) stalled: u64,
    pub(crate) bytes: u64,
}

impl Staging {
    pub(crate) fn new(program: &Program) -> Self {
        let mut arena = Arena::default();
        let mut take = |numbers: u32| arena.take(numbers as usize * 4).start;
        let (images, logits) = (program.batch * program.image_len, program.batch * program.classes);
        let staging = Self {
            images: take(images),
            image_gradient: take(images),
            lower: take(images),
            upper: take(images),
            logits: take(logits),
            logit_gradient: take(logits),
            clean: take(logits),
            labels: take(program.batch),
            stalled: take(program.batch),
            bytes: 0,
        };
        Self {
            bytes: arena.end(),
            ..staging
        }
    }
}
