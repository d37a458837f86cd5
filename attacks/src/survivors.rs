//! Attacks on the examples that the network still classifies correctly.
//!
//! Each attack of AutoAttack works on the survivors of the ones before and removes those that it breaks.
//! [`Survivors`], plain data, is passed from one attack to the next.

use candle_core::{DType, Result, Tensor};
use models::Classifier;
use random::Stream;

use crate::ball::per_image;
use crate::losses::prediction;
use crate::rows::{replace_rows, select_rows};
use crate::{Batch, BatchNorm, Perturbed, Probe};

/// The examples that are still unbroken, and the image that broke each of the others.
#[derive(Debug, Clone)]
pub struct Survivors {
    /// `[B, C, H, W]`, detached: the image that broke an example, the clean one where none has.
    pub images: Tensor,
    /// Whether the network is wrong about an example, its clean image included.
    pub broken: Vec<bool>,
    /// Whether an example ever met a loss gradient that was exactly zero in every pixel.
    pub stalled: Vec<bool>,
}

/// A batch and the network's predictions for it.
#[derive(Debug, Clone)]
pub(crate) struct Examples {
    pub(crate) batch: Batch,
    /// `[B, K]`, detached.
    pub(crate) clean_logits: Tensor,
}

impl Examples {
    /// One forward pass.
    pub(crate) fn new(probe: &mut Probe<'_>, batch: &Batch) -> Result<Self> {
        let batch = Batch {
            images: batch.images.detach(),
            ..batch.clone()
        };
        let clean_logits = probe.logits(&batch.images)?;
        Ok(Self { batch, clean_logits })
    }

    /// The examples at these places.
    pub(crate) fn select(&self, rows: &[usize]) -> Result<Self> {
        if rows.len() == self.batch.ids.len() && rows.iter().enumerate().all(|(place, &row)| place == row) {
            return Ok(self.clone());
        }
        Ok(Self {
            batch: self.batch.select(rows)?,
            clean_logits: select_rows(&self.clean_logits, rows)?,
        })
    }
}

impl Survivors {
    /// Before any attack: the network is wrong where it is wrong about the clean image.
    pub(crate) fn new(examples: &Examples) -> Result<Self> {
        let broken = wrong(&examples.clean_logits, &examples.batch.labels)?;
        Ok(Self {
            images: examples.batch.images.clone(),
            stalled: vec![false; broken.len()],
            broken,
        })
    }

    /// The places of the unbroken examples.
    pub fn rows(&self) -> Vec<usize> {
        (0..self.broken.len()).filter(|&row| !self.broken[row]).collect()
    }

    /// Removes the examples `rows[i]` with `broken[i]`, broken by row i of `images`.
    pub(crate) fn take(&mut self, rows: &[usize], broken: &[bool], images: &Tensor) -> Result<()> {
        let places: Vec<usize> = (0..rows.len()).filter(|&place| broken[place]).collect();
        if places.is_empty() {
            return Ok(());
        }
        let fallen: Vec<usize> = places.iter().map(|&place| rows[place]).collect();
        self.images = replace_rows(&self.images, &fallen, &select_rows(&images.detach(), &places)?)?;
        for row in fallen {
            self.broken[row] = true;
        }
        Ok(())
    }

    /// Notes which of `rows` met a gradient of zeros since the last call.
    pub(crate) fn note_stalls(&mut self, rows: &[usize], probe: &mut Probe<'_>) -> Result<()> {
        for (&row, stalled) in rows.iter().zip(probe.take_stalled()?) {
            self.stalled[row] |= stalled;
        }
        Ok(())
    }

    /// As the result of an attack.
    pub(crate) fn into_perturbed(self, probe: &Probe<'_>) -> Perturbed {
        Perturbed {
            images: self.images,
            cost: probe.cost(),
            zero_gradients: self.stalled.iter().filter(|&&stalled| stalled).count() as u64,
            queries: None,
        }
    }
}

/// Runs an attack on survivors on a whole batch.
pub(crate) fn perturb(
    classifier: &dyn Classifier,
    batch: &Batch,
    attack: impl FnOnce(&mut Probe<'_>, &Examples, &mut Survivors) -> Result<()>,
) -> Result<Perturbed> {
    let mut probe = Probe::new(classifier, BatchNorm::Eval)?;
    let examples = Examples::new(&mut probe, batch)?;
    let mut survivors = Survivors::new(&examples)?;
    attack(&mut probe, &examples, &mut survivors)?;
    Ok(survivors.into_perturbed(&probe))
}

/// The source of an attack's random draws: [`Stream`], or in tests the recorded draws of another program.
pub(crate) trait Draws {
    /// `len` uniform draws in `[0, 1)` for each example, for the `index`-th request.
    fn uniform(&self, index: u64, ids: &[u64], len: usize) -> Vec<f32>;
    /// `len` standard normal draws for each example.
    fn normal(&self, index: u64, ids: &[u64], len: usize) -> Vec<f32>;
}

impl Draws for Stream {
    fn uniform(&self, index: u64, ids: &[u64], len: usize) -> Vec<f32> {
        self.at(index).uniform(ids, len)
    }

    fn normal(&self, index: u64, ids: &[u64], len: usize) -> Vec<f32> {
        self.at(index).normal(ids, len)
    }
}

/// Where the prediction is not the label.
pub(crate) fn wrong(logits: &Tensor, labels: &Tensor) -> Result<Vec<bool>> {
    let wrong = prediction(logits)?.ne(labels)?.to_vec1::<u8>()?;
    Ok(wrong.into_iter().map(|flag| flag == 1).collect())
}

/// The rows of `yes` where the flag is set, those of `no` elsewhere; any shape, one flag for each row.
pub(crate) fn choose(flags: &[bool], yes: &Tensor, no: &Tensor) -> Result<Tensor> {
    if flags.iter().all(|&flag| flag) {
        return Ok(yes.clone());
    }
    if !flags.contains(&true) {
        return Ok(no.clone());
    }
    let flags: Vec<u8> = flags.iter().map(|&flag| u8::from(flag)).collect();
    let flags = per_image(&Tensor::new(flags, yes.device())?, yes)?;
    flags.broadcast_as(yes.shape())?.where_cond(yes, no)
}

/// One number for each row, on the host.
pub(crate) fn numbers(values: &Tensor) -> Result<Vec<f64>> {
    values.to_dtype(DType::F64)?.to_vec1()
}

/// One number for each image, in the precision and on the device of the images: `[B, 1, 1, 1]`.
pub(crate) fn each(values: &[f64], images: &Tensor) -> Result<Tensor> {
    let values = Tensor::new(values, images.device())?.to_dtype(images.dtype())?;
    per_image(&values, images)
}
