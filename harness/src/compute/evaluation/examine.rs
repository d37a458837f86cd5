//! Examines a network on clean images for signs that its robustness is only apparent.

use attacks::ball::{l1_norms, l2_norms};
use attacks::{Batch, BatchNorm, Loss, Norm, Probe, Threat};
use candle_core::DType;
use models::Classifier;

use super::logits::{differing, logits as all_logits};
use super::warnings::Warnings;
use crate::failure::Failure;

/// A change of the loss over the whole ball, to first order and in nats, below which a gradient has vanished.
const VANISHED: f64 = 1e-6;
/// How far two passes of one batch may differ, in units of an image's largest logit.
const ROUNDING: f64 = 1e-5;
/// How far from a distribution logits may be and still be taken for one.
const DISTRIBUTION: f64 = 1e-4;

/// The result of an examination.
pub(super) struct Examined {
    /// Where the gradient of cross entropy is zero in every pixel.
    pub(super) zero_gradients: u64,
    pub(super) warnings: Warnings,
}

/// Examines a network on clean images, of which `logits` are known.
pub(super) fn examine(
    network: &dyn Classifier,
    batch: &Batch,
    threat: &Threat,
    logits: &[Vec<f32>],
) -> Result<Examined, Failure> {
    let again = all_logits(network, &batch.images)?;
    let mut probe = Probe::new(network, BatchNorm::Eval)?;
    let cross_entropy = |logits: &candle_core::Tensor| Loss::CrossEntropy.per_example(logits, &batch.labels, None);
    let gradient = probe
        .slope(&batch.images, cross_entropy)?
        .gradient
        .to_dtype(DType::F64)?;
    // How much a perturbation of length 1 changes the loss, to first order: the dual norm.
    let norms = match threat.norm {
        Norm::Linf => l1_norms(&gradient)?,
        Norm::L2 => l2_norms(&gradient)?,
    };
    let norms: Vec<f64> = norms.flatten_all()?.to_vec1()?;
    let count = |wanted: &dyn Fn(f64) -> bool| norms.iter().filter(|&&norm| wanted(norm)).count() as u64;
    Ok(Examined {
        zero_gradients: count(&|norm| norm == 0.0),
        warnings: Warnings {
            vanishing_gradients: Some(count(&|norm| norm * threat.epsilon.value() <= VANISHED)),
            random_outputs: Some(differing(logits, &again, ROUNDING)),
            softmax_outputs: Some(logits.iter().filter(|row| is_distribution(row)).count() as u64),
        },
    })
}

fn is_distribution(logits: &[f32]) -> bool {
    let within = logits
        .iter()
        .all(|&logit| (-DISTRIBUTION..=1.0 + DISTRIBUTION).contains(&f64::from(logit)));
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit)).sum();
    within && (sum - 1.0).abs() <= DISTRIBUTION
}
