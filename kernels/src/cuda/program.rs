//! A frozen network as a list of launches: buffers laid out once, parameters folded in place, then forward pass,
//! backward pass and attack step without a decision left.

use candle_core::{Result, bail};

use super::machine::{self, Address, Arg, Convolve, Extent, Form, Grid, Machine, Pass, Windows, count, typed};
use crate::ascent::Loss;
use crate::convolution::Geometry;

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
    /// Weight, bias, running mean, running variance.
    pub(crate) norm: Option<[Address; 4]>,
    pub(crate) epsilon: f64,
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
        let folded = structure
            .layers
            .iter()
            .enumerate()
            .map(|(index, (_, layer))| match layer {
                Layer::Convolution { geometry, .. } => Folded {
                    weight: arena.take(geometry.outputs * geometry.patch() * width(form)),
                    shift: arena.take(geometry.outputs * 4),
                },
                Layer::NormRelu => {
                    let channels = structure.shapes[index + 1][0];
                    Folded {
                        weight: arena.take(channels * 4),
                        shift: arena.take(channels * 4),
                    }
                }
                _ => Folded::default(),
            });
        let folded = folded.collect();
        Self {
            folded,
            bytes: arena.end,
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
        for ((folded, source), (index, (_, layer))) in
            self.folded.iter().zip(sources).zip(structure.layers.iter().enumerate())
        {
            let [norm_weight, norm_bias, mean, variance] = source.norm.unwrap_or_default();
            let channels = structure.shapes[index + 1][0] as u32;
            let mut scale = 0;
            match layer {
                Layer::Convolution { geometry, .. } => {
                    let n = count(geometry.outputs * geometry.patch())?;
                    let args = [
                        Arg::At(base + folded.weight),
                        Arg::At(source.weight),
                        Arg::At(norm_weight),
                        Arg::At(variance),
                        Arg::F64(source.epsilon),
                        Arg::U32(n),
                        Arg::U32(geometry.inputs as u32),
                        Arg::U32(geometry.kernel_pixels() as u32),
                        Arg::I32(i32::from(form.last)),
                    ];
                    machine.launch(typed!(form.half, "fold"), Grid::over(n), &args)?;
                }
                Layer::NormRelu => scale = base + folded.weight,
                _ => continue,
            }
            let args = [
                Arg::At(scale),
                Arg::At(base + folded.shift),
                Arg::At(source.bias),
                Arg::At(norm_weight),
                Arg::At(norm_bias),
                Arg::At(mean),
                Arg::At(variance),
                Arg::F64(source.epsilon),
                Arg::U32(channels),
            ];
            machine.launch("fold_norm", Grid::over(channels), &args)?;
        }
        Ok(())
    }
}

fn width(form: Form) -> usize {
    if form.half { 2 } else { 4 }
}

/// Hands out memory from a line, and takes it back.
#[derive(Debug, Default)]
struct Arena {
    /// Free pieces before the end: start and length, in order.
    free: Vec<(u64, u64)>,
    end: u64,
}

impl Arena {
    const ALIGNMENT: u64 = 256;

    fn take(&mut self, bytes: usize) -> u64 {
        let bytes = (bytes as u64).max(1).next_multiple_of(Self::ALIGNMENT);
        let fits = |&(_, length): &(u64, u64)| length >= bytes;
        // The smallest piece that fits.
        let best = (0..self.free.len())
            .filter(|&at| fits(&self.free[at]))
            .min_by_key(|&at| self.free[at].1);
        match best {
            Some(at) => {
                let (start, length) = self.free[at];
                match length == bytes {
                    true => drop(self.free.remove(at)),
                    false => self.free[at] = (start + bytes, length - bytes),
                }
                start
            }
            None => {
                let start = self.end;
                self.end += bytes;
                start
            }
        }
    }

    fn give(&mut self, start: u64, bytes: usize) {
        let length = (bytes as u64).max(1).next_multiple_of(Self::ALIGNMENT);
        let at = self.free.partition_point(|&(other, _)| other < start);
        self.free.insert(at, (start, length));
        if at + 1 < self.free.len() && self.free[at].0 + self.free[at].1 == self.free[at + 1].0 {
            self.free[at].1 += self.free[at + 1].1;
            self.free.remove(at + 1);
        }
        if at > 0 && self.free[at - 1].0 + self.free[at - 1].1 == self.free[at].0 {
            self.free[at - 1].1 += self.free[at].1;
            self.free.remove(at);
        }
    }
}

/// A buffer of the work memory.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Buffer {
    start: u64,
    bytes: usize,
}

/// A launch whose addresses count from the work memory's or the parameters' start.
#[derive(Debug, Clone)]
enum Command {
    Launch(&'static str, Grid, Vec<Operand>),
    Convolve {
        convolve: Convolve,
        pass: Pass,
        images: u64,
        weights: u64,
        result: u64,
        accumulate: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Operand {
    Work(u64),
    Parameter(u64),
    Outside(Outside),
    Plain(Arg),
}

/// f32 tensors that a program reads or writes, in Candle's order.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outside {
    Images,
    Logits,
    LogitGradient,
    ImageGradient,
}

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

/// A frozen network for batches of one size.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    forward: Vec<Command>,
    backward: Vec<Command>,
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
        let mut writer = Writer {
            structure,
            parameters,
            form,
            batch,
            arena: Arena::default(),
            commands: Vec::new(),
        };
        let last = structure.shapes.len() - 1;
        let [classes, 1, 1] = structure.shapes[last] else {
            bail!("frozen: logits {:?} are no vector", structure.shapes[last]);
        };
        let marks = writer.forward();
        let forward = std::mem::take(&mut writer.commands);
        writer.backward(&marks);
        Ok(Self {
            forward,
            backward: writer.commands,
            work: writer.arena.end,
            batch: batch as u32,
            image_len: structure.shapes[0].iter().product::<usize>() as u32,
            classes: classes as u32,
        })
    }

    pub(crate) fn forward(&self, machine: &impl Machine, bases: &Bases) -> Result<()> {
        run(machine, &self.forward, bases)
    }

    /// From the logits' gradient to the images', of the last forward pass.
    pub(crate) fn backward(&self, machine: &impl Machine, bases: &Bases) -> Result<()> {
        run(machine, &self.backward, bases)
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

fn run(machine: &impl Machine, commands: &[Command], bases: &Bases) -> Result<()> {
    let mut args = Vec::new();
    for command in commands {
        match command {
            Command::Launch(kernel, grid, operands) => {
                args.clear();
                args.extend(operands.iter().map(|operand| match *operand {
                    Operand::Work(offset) => Arg::At(bases.work + offset),
                    Operand::Parameter(offset) => Arg::At(bases.parameters + offset),
                    Operand::Outside(Outside::Images) => Arg::At(bases.images),
                    Operand::Outside(Outside::Logits) => Arg::At(bases.logits),
                    Operand::Outside(Outside::LogitGradient) => Arg::At(bases.logit_gradient),
                    Operand::Outside(Outside::ImageGradient) => Arg::At(bases.image_gradient),
                    Operand::Plain(arg) => arg,
                }));
                machine.launch(kernel, *grid, &args)?;
            }
            Command::Convolve {
                convolve,
                pass,
                images,
                weights,
                result,
                accumulate,
            } => machine.convolve(
                convolve,
                *pass,
                bases.work + images,
                bases.parameters + weights,
                bases.work + result,
                *accumulate,
            )?,
        }
    }
    Ok(())
}

/// Writes the commands of one program.
struct Writer<'a> {
    structure: &'a Structure,
    parameters: &'a Parameters,
    form: Form,
    batch: usize,
    arena: Arena,
    commands: Vec<Command>,
}

use Operand::{Outside as Beyond, Parameter, Plain, Work};

fn whole(value: usize) -> Operand {
    Plain(Arg::U32(value as u32))
}

fn flag(value: bool) -> Operand {
    Plain(Arg::I32(i32::from(value)))
}

impl Writer<'_> {
    /// Numbers in value `id` of the whole batch.
    fn len(&self, id: usize) -> usize {
        self.batch * self.structure.shapes[id].iter().product::<usize>()
    }

    fn take(&mut self, id: usize) -> Buffer {
        let bytes = self.len(id) * width(self.form);
        Buffer {
            start: self.arena.take(bytes),
            bytes,
        }
    }

    fn give(&mut self, buffer: Buffer) {
        self.arena.give(buffer.start, buffer.bytes);
    }

    fn launch(&mut self, kernel: &'static str, n: usize, operands: Vec<Operand>) {
        self.commands
            .push(Command::Launch(kernel, Grid::over(n as u32), operands));
    }

    /// Channels and the pixels by which a channel's index must be divided.
    fn channels(&self, id: usize) -> [Operand; 2] {
        let [channels, height, width] = self.structure.shapes[id];
        let area = if self.form.last { 1 } else { height * width };
        [whole(channels), whole(area)]
    }

    /// Between Candle's order and ours.
    fn exchange(&mut self, kernel: &'static str, id: usize, [out, from]: [Operand; 2]) {
        let [channels, height, width] = self.structure.shapes[id];
        let n = self.len(id);
        let operands = vec![
            out,
            from,
            whole(n),
            whole(channels),
            whole(height * width),
            flag(self.form.last),
        ];
        self.launch(kernel, n, operands);
    }

    fn windows(&self, input: usize, layer: Layer) -> Windows {
        let [channels, height, width] = self.structure.shapes[input];
        let images = [self.batch, channels, height, width];
        match layer {
            Layer::MaxPool(size) => Windows::square(images, size),
            _ => Windows {
                images,
                down: height,
                across: width,
            },
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
    fn forward(&mut self) -> Vec<Option<Buffer>> {
        let structure = self.structure;
        let half = self.form.half;
        let last_uses = self.last_uses();
        let mut values: Vec<Option<Buffer>> = vec![None; structure.shapes.len()];
        let images = self.take(0);
        self.exchange(typed!(half, "enter"), 0, [Work(images.start), Beyond(Outside::Images)]);
        values[0] = Some(images);
        let mut marks = Vec::new();
        for (index, &(input, layer)) in structure.layers.iter().enumerate() {
            let output = index + 1;
            let n = self.len(output);
            let folded = self.parameters.folded[index];
            let out = self.take(output);
            let x = values[input].expect("a value is computed before its use");
            let keeps = match layer {
                Layer::Convolution { relu, .. } => relu,
                Layer::NormRelu | Layer::MaxPool(_) => true,
                _ => false,
            };
            let mark = keeps.then(|| Buffer {
                start: self.arena.take(n),
                bytes: n,
            });
            let kept = mark.map_or(Plain(Arg::At(0)), |mark| Work(mark.start));
            let [channels, area] = self.channels(output);
            match layer {
                Layer::Convolution {
                    geometry,
                    residual,
                    relu,
                } => {
                    self.convolve(geometry, Pass::Forward, x, index, out, false);
                    let other = match residual {
                        Some(residual) => Work(values[residual].expect("computed before").start),
                        None => Plain(Arg::At(0)),
                    };
                    let shift = Parameter(folded.shift);
                    let operands = vec![
                        Work(out.start),
                        Work(out.start),
                        shift,
                        other,
                        kept,
                        whole(n),
                        channels,
                        area,
                        flag(relu),
                    ];
                    self.launch(typed!(half, "finish"), n, operands);
                }
                Layer::NormRelu => {
                    let (scale, shift) = (Parameter(folded.weight), Parameter(folded.shift));
                    let operands = vec![
                        Work(out.start),
                        Work(x.start),
                        scale,
                        shift,
                        kept,
                        whole(n),
                        channels,
                        area,
                    ];
                    self.launch(typed!(half, "scale_relu"), n, operands);
                }
                Layer::MaxPool(size) => {
                    let mut operands = vec![Work(out.start), kept, Work(x.start), whole(n)];
                    operands.extend(structure.shapes[input].map(whole));
                    operands.extend([whole(size), flag(self.form.last)]);
                    self.launch(typed!(half, "max_pool"), n, operands);
                }
                Layer::Mean => {
                    let windows = self.windows(input, layer);
                    let mut operands = vec![Work(out.start), Work(x.start), whole(n)];
                    operands.extend(structure.shapes[input].map(whole));
                    operands.extend([whole(windows.down), whole(windows.across), flag(self.form.last)]);
                    self.launch(typed!(half, "mean_pool"), n, operands);
                }
            }
            marks.push(mark);
            values[output] = Some(out);
            for (id, &last) in last_uses.iter().enumerate() {
                if last == index
                    && let Some(buffer) = values[id].take()
                {
                    self.give(buffer);
                }
            }
        }
        let last = structure.shapes.len() - 1;
        let logits = values[last].expect("a network has a layer");
        self.exchange(
            typed!(half, "leave"),
            last,
            [Beyond(Outside::Logits), Work(logits.start)],
        );
        // Values that nobody reads, the logits among them.
        for buffer in values.into_iter().flatten() {
            self.give(buffer);
        }
        marks
    }

    fn convolve(&mut self, geometry: Geometry, pass: Pass, images: Buffer, index: usize, result: Buffer, add: bool) {
        let convolve = Convolve {
            geometry: Geometry {
                batch: self.batch,
                ..geometry
            },
            half: self.form.half,
            last: self.form.last,
        };
        self.commands.push(Command::Convolve {
            convolve,
            pass,
            images: images.start,
            weights: self.parameters.folded[index].weight,
            result: result.start,
            accumulate: add,
        });
    }

    /// The backward pass.
    fn backward(&mut self, marks: &[Option<Buffer>]) {
        let structure = self.structure;
        let half = self.form.half;
        let last = structure.shapes.len() - 1;
        let mut gradients: Vec<Option<Buffer>> = vec![None; structure.shapes.len()];
        let logits = self.take(last);
        self.exchange(
            typed!(half, "enter"),
            last,
            [Work(logits.start), Beyond(Outside::LogitGradient)],
        );
        gradients[last] = Some(logits);
        for (index, &(input, layer)) in structure.layers.iter().enumerate().rev() {
            let output = index + 1;
            // A value that nothing reads has no gradient.
            let Some(g) = gradients[output].take() else { continue };
            let n = self.len(input);
            let (to, add) = match gradients[input] {
                Some(buffer) => (buffer, true),
                None => (self.take(input), false),
            };
            gradients[input] = Some(to);
            let mark = marks[index];
            let kept = mark.map_or(Plain(Arg::At(0)), |mark| Work(mark.start));
            let mut free = Some(g);
            match layer {
                Layer::Convolution {
                    geometry,
                    residual,
                    relu,
                } => {
                    if relu {
                        let all = self.len(output);
                        self.launch(typed!(half, "mask"), all, vec![Work(g.start), kept, whole(all)]);
                    }
                    self.convolve(geometry, Pass::ToImages, to, index, g, add);
                    if let Some(residual) = residual {
                        match gradients[residual] {
                            Some(sum) => {
                                let all = self.len(output);
                                let operands = vec![Work(sum.start), Work(g.start), whole(all), flag(true)];
                                self.launch(typed!(half, "add"), all, operands);
                            }
                            // The gradient's own buffer goes on.
                            None => gradients[residual] = free.take(),
                        }
                    }
                }
                Layer::NormRelu => {
                    let scale = Parameter(self.parameters.folded[index].weight);
                    let [channels, area] = self.channels(output);
                    let operands = vec![
                        Work(to.start),
                        Work(g.start),
                        scale,
                        kept,
                        whole(n),
                        channels,
                        area,
                        flag(add),
                    ];
                    self.launch(typed!(half, "scale_relu_gradient"), n, operands);
                }
                Layer::MaxPool(size) => {
                    let mut operands = vec![Work(to.start), kept, Work(g.start), whole(n)];
                    operands.extend(structure.shapes[input].map(whole));
                    operands.extend([whole(size), flag(self.form.last), flag(add)]);
                    self.launch(typed!(half, "max_pool_gradient"), n, operands);
                }
                Layer::Mean => {
                    let windows = self.windows(input, layer);
                    let mut operands = vec![Work(to.start), Work(g.start), whole(n)];
                    operands.extend(structure.shapes[input].map(whole));
                    operands.extend([
                        whole(windows.down),
                        whole(windows.across),
                        flag(self.form.last),
                        flag(add),
                    ]);
                    self.launch(typed!(half, "mean_pool_gradient"), n, operands);
                }
            }
            if let Some(buffer) = free {
                self.give(buffer);
            }
        }
        let images = gradients[0].expect("the first layer reads the images");
        self.exchange(
            typed!(half, "leave"),
            0,
            [Beyond(Outside::ImageGradient), Work(images.start)],
        );
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
        let images = (program.batch * program.image_len * 4) as usize;
        let logits = (program.batch * program.classes * 4) as usize;
        let rows = (program.batch * 4) as usize;
        Self {
            images: arena.take(images),
            image_gradient: arena.take(images),
            lower: arena.take(images),
            upper: arena.take(images),
            logits: arena.take(logits),
            logit_gradient: arena.take(logits),
            clean: arena.take(logits),
            labels: arena.take(rows),
            stalled: arena.take(rows),
            bytes: arena.end,
        }
    }
}

/// Whether [`Extent`] can describe all of a network's values.
pub(crate) fn check(structure: &Structure, batch: usize) -> Result<()> {
    for &[channels, height, width] in &structure.shapes {
        Extent::new(&[batch, channels, height, width])?;
    }
    Ok(())
}
