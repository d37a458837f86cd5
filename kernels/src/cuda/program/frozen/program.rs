//! A frozen network for batches of one size.

use candle_core::Result;

use super::parameters::Parameters;
use super::regions::Bases;
use super::writer::Writer;
use crate::cuda::launches::Launches;
use crate::cuda::machine::{Form, Machine};
use crate::cuda::program::batch::Batch;
use crate::graph::Graph;

/// A frozen network for batches of one size.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    forward: Launches,
    backward: Launches,
    /// Bytes of work memory.
    pub(crate) work: u64,
    pub(crate) batch: u32,
    pub(crate) image_len: u32,
    pub(crate) classes: u32,
}

impl Program {
    pub(crate) fn new(graph: &Graph, parameters: &Parameters, form: Form, batch: usize) -> Result<Self> {
        let batch = Batch {
            graph,
            form,
            size: batch,
        };
        let classes = batch.classes()?;
        let mut writer = Writer::new(batch, parameters);
        let marks = writer.forward()?;
        let forward = writer.launches.take();
        writer.backward(&marks)?;
        Ok(Self {
            forward,
            backward: writer.launches.take(),
            work: writer.arena.end(),
            batch: batch.size as u32,
            image_len: graph.shapes[0].iter().product::<usize>() as u32,
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
}
