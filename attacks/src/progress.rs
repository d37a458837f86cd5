//! The progress of attacks that run one after another.

use candle_core::{Result, Tensor};

use crate::survivors::{Examples, Survivors};
use crate::{Batch, Probe};

/// The progress of a sequence of attacks on a batch: all that the next attack needs beside the batch.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The number of attacks that have finished.
    pub done: usize,
    /// The examples that they left unbroken.
    pub survivors: Survivors,
    /// For each example the attack that broke it, counted from 0; `None` if none did: the example is robust so far, or
    /// the network is wrong about the clean image.
    pub broken_by: Vec<Option<usize>>,
    /// `[B, K]`
    pub clean_logits: Tensor,
}

impl Progress {
    /// Before the first attack: the clean images are classified.
    pub fn begin(probe: &mut Probe<'_>, batch: &Batch) -> Result<Self> {
        let examples = Examples::new(probe, batch)?;
        let survivors = Survivors::new(&examples)?;
        Ok(Self {
            done: 0,
            broken_by: vec![None; survivors.broken.len()],
            survivors,
            clean_logits: examples.clean_logits,
        })
    }
}
