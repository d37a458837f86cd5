//! A network in training as a list of launches: the forward pass with the batch's statistics, and the way back to the
//! gradients of parameters and images.
//!
//! Batch normalisation, the sum with a residual and ReLU are one pass over the numbers, and so are their gradients.
//! Every buffer has its place before anything runs; what the way back has read is room for what it still writes.

mod backward;
mod forward;

use candle_core::{Result, bail};

use crate::convolution::Geometry;
use crate::cuda::arena::Arena;
use crate::cuda::machine::{Address, Form, Machine, count};
use crate::cuda::recording::{Recorder, Recording};
use forward::Writer;

/// What a network is made of, without its numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Structure {
    /// Channels, height and width of every value; the first is the image, the last the logits.
    pub(crate) shapes: Vec<[usize; 3]>,
    /// For every further value: what it is made from, and how.
    pub(crate) layers: Vec<(usize, Layer)>,
    /// How many numbers each parameter has.
    pub(crate) parameters: Vec<usize>,
    /// How many batch normalisations there are.
    pub(crate) norms: usize,
}

/// A parameter, by its place among all.
pub(crate) type Parameter = usize;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Layer {
    Convolution {
        /// Of one image.
        geometry: Geometry,
        weight: Parameter,
        bias: Option<Parameter>,
        norm: Option<Norm>,
        residual: Option<usize>,
        relu: bool,
    },
    NormRelu(Norm),
    MaxPool(usize),
    Mean,
    Dropout,
}

/// A batch normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Norm {
    pub(crate) weight: Parameter,
    pub(crate) bias: Parameter,
    /// Which running statistics are its own.
    pub(crate) which: usize,
    pub(crate) epsilon: f64,
    pub(crate) momentum: f64,
}

/// What else a program depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) form: Form,
    pub(crate) batch: usize,
    /// Whether running statistics move.
    pub(crate) update: bool,
    /// Whether dropout takes factors; else it changes nothing.
    pub(crate) dropout: bool,
    /// Whether the images' gradient is wanted.
    pub(crate) to_images: bool,
}

// The regions of a program. Images, logits and their gradients are f32 tensors in Candle's order, as parameters and
// running statistics are.
const WORK: usize = 0;
const IMAGES: usize = 1;
const LOGITS: usize = 2;
const LOGIT_GRADIENT: usize = 3;
const IMAGE_GRADIENT: usize = 4;
const GRADIENTS: usize = 5;
const FACTORS: usize = 6;
/// Every parameter, then running mean and variance of every normalisation.
const TENSORS: usize = 7;

/// Where a run of a program finds everything; what it does not need may be nowhere.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bases<'a> {
    pub(crate) work: Address,
    pub(crate) images: Address,
    pub(crate) logits: Address,
    pub(crate) logit_gradient: Address,
    pub(crate) image_gradient: Address,
    /// All parameters' gradients, each where [`Program::gradients`] says.
    pub(crate) gradients: Address,
    /// The dropouts' factors, one after the other.
    pub(crate) factors: Address,
    pub(crate) parameters: &'a [Address],
    pub(crate) running: &'a [[Address; 2]],
}

impl Bases<'_> {
    /// By region.
    fn starts(&self) -> Vec<Address> {
        let mut starts = vec![0; TENSORS];
        starts[WORK] = self.work;
        starts[IMAGES] = self.images;
        starts[LOGITS] = self.logits;
        starts[LOGIT_GRADIENT] = self.logit_gradient;
        starts[IMAGE_GRADIENT] = self.image_gradient;
        starts[GRADIENTS] = self.gradients;
        starts[FACTORS] = self.factors;
        starts.extend(self.parameters);
        starts.extend(self.running.iter().flatten());
        starts
    }
}

/// A network in training for batches of one size.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    forward: Recording,
    backward: Recording,
    /// Bytes of work memory. It must be left alone between forward and backward pass.
    pub(crate) work: u64,
    pub(crate) classes: usize,
    /// Where each parameter's gradient starts, in numbers.
    pub(crate) gradients: Vec<usize>,
    /// How many numbers all gradients take.
    pub(crate) gradient_len: usize,
    /// Whether the logits depend on all parameters; else gradients must be zeros before the backward pass.
    pub(crate) reaches_all: bool,
}

impl Program {
    pub(crate) fn new(structure: &Structure, way: Way) -> Result<Self> {
        for shape in &structure.shapes {
            count(way.batch * shape.iter().product::<usize>())?;
        }
        let last = structure.shapes.len() - 1;
        let [classes, 1, 1] = structure.shapes[last] else {
            bail!("trained: logits {:?} are no vector", structure.shapes[last]);
        };
        let mut gradients = Vec::new();
        let mut gradient_len = 0;
        for len in &structure.parameters {
            gradients.push(gradient_len);
            gradient_len += len.next_multiple_of(Arena::ALIGNMENT as usize / 4);
        }
        let mut writer = Writer {
            structure,
            way,
            gradients: &gradients,
            reached: vec![false; structure.parameters.len()],
            arena: Arena::default(),
            told: Recorder::default(),
        };
        let kept = writer.forward()?;
        let forward = writer.told.take();
        writer.backward(kept)?;
        Ok(Self {
            forward,
            backward: writer.told.take(),
            work: writer.arena.end(),
            classes,
            reaches_all: writer.reached.iter().all(|&it| it),
            gradients,
            gradient_len,
        })
    }

    /// The logits, with the batch's own statistics.
    pub(crate) fn forward(&self, machine: &impl Machine, bases: &Bases<'_>) -> Result<()> {
        self.forward.play(machine, &bases.starts())
    }

    /// From the logits' gradient to all others, once after each forward pass.
    pub(crate) fn backward(&self, machine: &impl Machine, bases: &Bases<'_>) -> Result<()> {
        self.backward.play(machine, &bases.starts())
    }

    /// Launches and convolutions of the two passes.
    #[cfg(test)]
    pub(crate) fn lengths(&self) -> [usize; 2] {
        [self.forward.len(), self.backward.len()]
    }
}
