//! What gives reason to doubt a network's robustness, seen on clean images.

use attacks::ball::{l1_norms, l2_norms};
use attacks::{Batch, BatchNorm, Loss, Norm, Probe, Threat};
use candle_core::DType;
use models::Classifier;
use serde::{Deserialize, Serialize};

use super::gates;
use crate::failure::Failure;

/// A change of the loss over the whole ball, to first order and in nats, below which a gradient has vanished.
const VANISHED: f64 = 1e-6;
/// How far two passes of one batch may lie apart, in units of an image's largest logit.
const ROUNDING: f64 = 1e-5;
/// How far from a distribution logits may be and still be taken for one.
const DISTRIBUTION: f64 = 1e-4;

/// Images that give reason to doubt. `None`: nobody looked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Doubts {
    /// Where the gradient of cross entropy is too small to follow.
    pub(crate) vanishing_gradients: Option<u64>,
    /// Whose logits differ between two passes.
    pub(crate) random_outputs: Option<u64>,
    /// Whose logits are probabilities.
    pub(crate) softmax_outputs: Option<u64>,
}

impl std::ops::AddAssign for Doubts {
    fn add_assign(&mut self, other: Self) {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
        self.vanishing_gradients = sum(self.vanishing_gradients, other.vanishing_gradients);
        self.random_outputs = sum(self.random_outputs, other.random_outputs);
        self.softmax_outputs = sum(self.softmax_outputs, other.softmax_outputs);
    }
}

/// What a look at the network on clean images shows.
pub(super) struct Examined {
    /// Where the gradient of cross entropy is zero in every pixel.
    pub(super) zero_gradients: u64,
    pub(super) doubts: Doubts,
}

/// Looks at a network on clean images, of which `logits` are known.
pub(super) fn examine(
    network: &dyn Classifier,
    batch: &Batch,
    threat: &Threat,
    logits: &[Vec<f32>],
) -> Result<Examined, Failure> {
    let again = gates::logits(network, &batch.images)?;
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
        doubts: Doubts {
            vanishing_gradients: Some(count(&|norm| norm * threat.epsilon.value() <= VANISHED)),
            random_outputs: Some(gates::differing(logits, &again, ROUNDING)),
            softmax_outputs: Some(logits.iter().filter(|row| is_distribution(row)).count() as u64),
        },
    })
}

fn is_distribution(logits: &[f32]) -> bool {
    let within = logits
        .iter()
        .all(|&it| (-DISTRIBUTION..=1.0 + DISTRIBUTION).contains(&f64::from(it)));
    let sum: f64 = logits.iter().map(|&it| f64::from(it)).sum();
    within && (sum - 1.0).abs() <= DISTRIBUTION
}
