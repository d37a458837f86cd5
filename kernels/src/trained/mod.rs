//! A network in training as one operation from images and parameters to logits.
//!
//! Layer after layer goes over the whole batch, because batch statistics see all of it; inside a layer
//! every image is a task of its own. Channels lie side by side throughout. What the gradient needs is
//! kept, once, and given back as soon as it has been used, so that a step takes little more memory than
//! its activations.

mod backward;
mod convolve;
mod forward;
pub(crate) mod gradients;
mod norm;
mod operation;
mod pass;
mod pool;
mod restore;

use std::sync::Mutex;

use candle_core::{DType, Result, Tensor, bail};

use crate::batch_norm::Statistics;
use crate::graph::{Graph, Layer, Recording};
use gradients::Gradients;
use pass::Pass;
pub use pool::Pool;

/// Factors of one dropout, given its layer and how many numbers each example has.
pub type Factors<'a> = &'a dyn Fn(u64, usize) -> Vec<f32>;

/// The logits `[B, K]` of f32 `images` `[B, C, H, W]`, those of the last layer, with the batch's own
/// statistics. Gradients flow to the parameters, and to the images if they are tracked. The gradient
/// can be asked for once: what it needs is gone then. The pool's memory is used, and left there for the next pass.
///
/// # Errors
/// Images of another shape, numbers that are not f32, running statistics.
pub fn logits(
    recording: Recording,
    images: &Tensor,
    statistics: Statistics,
    dropout: Option<Factors<'_>>,
    pool: &Pool,
) -> Result<Tensor> {
    let image = recording.graph.shapes[0];
    if images.dims().get(1..) != Some(&image) || images.dtype() != DType::F32 {
        bail!(
            "trained: images {:?} {:?} instead of [B, C, H, W] = [B, {image:?}] F32",
            images.dims(),
            images.dtype(),
        );
    }
    if statistics == Statistics::Running {
        bail!("trained: only for the batch's own statistics");
    }
    let tracked = recording
        .parameters
        .iter()
        .map(contiguous)
        .collect::<Result<Vec<_>>>()?;
    let recording = Recording {
        parameters: tracked.iter().map(Tensor::detach).collect(),
        ..recording
    };
    let gradients = Gradients::default();
    let token = gradients.token(&tracked, images.device())?;
    let factors = factors(&recording.graph, images.dims()[0], dropout)?;
    let images = images.contiguous()?;
    #[cfg(feature = "cuda")]
    if images.device().is_cuda() {
        let factors = dropout.is_some().then(|| factors.concat());
        let network = crate::cuda::trained::Network {
            recording,
            gradients,
            pool: pool.card.clone(),
        };
        return network.logits(&images, &token, statistics, factors);
    }
    let pass = Pass {
        keep: images.track_op() || token.track_op(),
        recording,
        gradients,
        pool: pool.clone(),
        statistics,
        factors,
        kept: Mutex::default(),
    };
    images.apply_op2(&token, pass)
}

fn contiguous(parameter: &Tensor) -> Result<Tensor> {
    if parameter.dtype() != DType::F32 {
        bail!("trained: a parameter is {:?}, not f32", parameter.dtype());
    }
    parameter.contiguous()
}

/// The factors of every dropout; none for other layers, and without dropout.
fn factors(graph: &Graph, batch: usize, dropout: Option<Factors<'_>>) -> Result<Vec<Vec<f32>>> {
    let factors = graph.steps.iter().map(|step| {
        let (Layer::Dropout(layer), Some(draw)) = (step.layer, dropout) else {
            return Ok(Vec::new());
        };
        let width = graph.shapes[step.input].iter().product();
        let factors = draw(layer, width);
        if factors.len() != batch * width {
            bail!("trained: {} factors of a dropout over {batch} x {width}", factors.len());
        }
        Ok(factors)
    });
    factors.collect()
}
