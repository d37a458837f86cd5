//! A network in training for batches of one size.

use candle_core::Result;

use super::regions::Bases;
use super::writer::{Variant, Writer};
use crate::cuda::arena::Arena;
use crate::cuda::launches::Launches;
use crate::cuda::machine::Machine;
use crate::cuda::program::batch::Batch;
use crate::graph::Graph;

/// A network in training for batches of one size.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    forward: Launches,
    backward: Launches,
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
    pub(crate) fn new(graph: &Graph, variant: Variant) -> Result<Self> {
        let batch = Batch {
            graph,
            form: variant.form,
            size: variant.batch,
        };
        let classes = batch.classes()?;
        let mut gradients = Vec::new();
        let mut gradient_len = 0;
        for len in &graph.parameters {
            gradients.push(gradient_len);
            gradient_len += len.next_multiple_of(Arena::ALIGNMENT as usize / 4);
        }
        let mut writer = Writer::new(batch, variant, &gradients);
        let kept = writer.forward()?;
        let forward = writer.launches.take();
        writer.backward(kept)?;
        Ok(Self {
            forward,
            backward: writer.launches.take(),
            work: writer.arena.end(),
            classes,
            reaches_all: writer.reached.iter().all(|&reached| reached),
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
