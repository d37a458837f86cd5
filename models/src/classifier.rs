//! What an attack sees of a network.

use candle_core::{Module, Result, Tensor};
use kernels::ascent::{Ascended, Ascent};
use random::Stream;

/// What batch norm and dropout do in one forward pass. Chosen by the caller at every call and never
/// left over from the last one.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// Running statistics, no dropout. Nothing is changed.
    Eval,
    /// The batch's own statistics, no dropout. Running statistics are left as they are.
    BatchStatistics,
    /// The batch's own statistics; running statistics are updated. Dropout if draws are given.
    Train(Option<Dropout<'a>>),
}

/// The draws of the dropout masks of one forward pass.
#[derive(Debug, Clone, Copy)]
pub struct Dropout<'a> {
    /// The stream of this forward pass.
    pub random: &'a Stream,
    /// The example in each row of the batch.
    pub ids: &'a [u64],
}

/// A differentiable map from images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
///
/// Normalisation belongs to the network. Gradients flow to the images through Candle's autograd.
pub trait Classifier: Send + Sync {
    /// The logits `[B, K]` of `images` `[B, C, H, W]`.
    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> Result<Tensor>;

    /// K, the number of classes.
    fn classes(&self) -> usize;

    /// A constant copy for as long as the parameters do not change: the same logits and image
    /// gradients in [`Mode::Eval`], cheaper, with no gradient to any parameter. `None`: there is
    /// no cheaper form; use the classifier itself.
    fn freeze(&self) -> Result<Option<Box<dyn Classifier>>> {
        Ok(None)
    }

    /// Many steps of an L∞ attack on logits in [`Mode::Eval`] at once, where that is faster than one by one: on a
    /// frozen network on a GPU. `None`: take the steps yourself.
    fn ascend(&self, _: &Ascent<'_>) -> Result<Option<Ascended>> {
        Ok(None)
    }
}

/// Any Candle [`Module`] from images to logits as a [`Classifier`]. The mode is ignored: such a
/// module must behave the same in training and evaluation.
#[derive(Debug)]
pub struct FromModule<M> {
    /// The module.
    pub module: M,
    /// K, the number of classes.
    pub classes: usize,
}

impl<M: Module + Send + Sync> Classifier for FromModule<M> {
    fn logits(&self, images: &Tensor, _: Mode<'_>) -> Result<Tensor> {
        self.module.forward(images)
    }

    fn classes(&self) -> usize {
        self.classes
    }
}
