//! The worst of several restarts.

use candle_core::{Result, Tensor};

use crate::rows::{replace_rows, select_rows};
use crate::survivors::{numbers, wrong};

/// The worst image of each example over the restarts so far.
pub(crate) struct Worst {
    pub(crate) images: Tensor,
    broken: Vec<bool>,
    losses: Vec<f64>,
    stalls: Vec<bool>,
}

impl Worst {
    /// Before the first restart.
    pub(crate) fn new(images: &Tensor) -> Self {
        let examples = images.dims()[0];
        Self {
            images: images.clone(),
            broken: vec![false; examples],
            losses: vec![f64::NEG_INFINITY; examples],
            stalls: vec![false; examples],
        }
    }

    /// All places.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.broken.len()).collect()
    }

    /// The places of the examples that no restart has broken.
    pub(crate) fn unbroken(&self) -> Vec<usize> {
        self.all().into_iter().filter(|&row| !self.broken[row]).collect()
    }

    /// Records which of `rows` met a gradient of zeros.
    pub(crate) fn stalled(&mut self, rows: &[usize], stalled: &[bool]) {
        for (&row, &stalled) in rows.iter().zip(stalled) {
            self.stalls[row] |= stalled;
        }
    }

    /// The number of examples that ever met a gradient of zeros.
    pub(crate) fn stalls(&self) -> u64 {
        self.stalls.iter().filter(|&&stalled| stalled).count() as u64
    }

    /// Takes the images of `rows` that are worse for the network than those before.
    pub(crate) fn offer(
        &mut self,
        rows: &[usize],
        images: &Tensor,
        logits: &Tensor,
        losses: &Tensor,
        labels: &Tensor,
    ) -> Result<()> {
        let broken = wrong(logits, labels)?;
        let losses = numbers(losses)?;
        let (mut places, mut worse) = (Vec::new(), Vec::new());
        for (place, &row) in rows.iter().enumerate() {
            let breaks = broken[place];
            if !self.broken[row] && (breaks || losses[place] > self.losses[row]) {
                places.push(place);
                worse.push(row);
                self.broken[row] = breaks;
                self.losses[row] = losses[place];
            }
        }
        if !worse.is_empty() {
            self.images = replace_rows(&self.images, &worse, &select_rows(images, &places)?)?;
        }
        Ok(())
    }
}
