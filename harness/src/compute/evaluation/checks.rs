//! Rules that every valid result satisfies. Breaking one is an integrity error.

use attacks::{Batch, Norm, Threat};
use candle_core::{DType, Tensor};
use models::{Classifier, Network};

use super::logits::{best, differing, largest, logits};
use super::warnings::Warnings;
use crate::failure::Failure;

/// Slack of the rules for images, in pixel units: rounding of f32 images near 1.
pub(crate) const SLACK: f64 = 1e-6;
/// How far apart two computations of a logit may be, in units of the largest logit of the image: on the CPU rounding,
/// on a GPU that of products in TF32.
const ROUNDING: [f64; 2] = [1e-4, 2e-2];

/// The norm of each perturbation. Fails on an image outside the threat model or `[0, 1]`.
pub(super) fn check_images(batch: &Batch, attacked: &Tensor, threat: &Threat) -> Result<Vec<f64>, Failure> {
    if batch.images.dims() != attacked.dims() {
        let (before, after) = (batch.images.dims(), attacked.dims());
        return Err(Failure::Integrity(format!(
            "the attack turned images of shape {before:?} into {after:?}"
        )));
    }
    let flat = |images: &Tensor| images.to_dtype(DType::F32)?.flatten_from(1)?.to_vec2::<f32>();
    let (before, after) = (flat(&batch.images)?, flat(attacked)?);
    let mut deltas = Vec::with_capacity(before.len());
    for ((before, after), id) in before.iter().zip(&after).zip(&batch.ids) {
        if let Some(pixel) = after
            .iter()
            .find(|&&pixel| !(-SLACK..=1.0 + SLACK).contains(&f64::from(pixel)))
        {
            return Err(Failure::Integrity(format!(
                "the attacked image {id} has a pixel of {pixel}, outside [0, 1]"
            )));
        }
        let changes = before
            .iter()
            .zip(after)
            .map(|(&a, &b)| (f64::from(b) - f64::from(a)).abs());
        let delta = match threat.norm {
            Norm::Linf => changes.fold(0.0, f64::max),
            Norm::L2 => changes.map(|change| change * change).sum::<f64>().sqrt(),
        };
        if delta > threat.epsilon.value() + SLACK {
            return Err(Failure::Integrity(format!(
                "the attacked image {id} is {delta} away ({}), further than {}",
                threat.norm, threat.epsilon,
            )));
        }
        deltas.push(delta);
    }
    Ok(deltas)
}

/// Classifies attacked images once more: in reverse order, in two batches of other sizes, and layer by layer rather than
/// by the frozen network that attacks use. Fails where that changes a prediction by more than rounding, unless the
/// network answers at random, which is counted.
pub(super) fn check_again(
    plain: &dyn Classifier,
    frozen: &dyn Classifier,
    images: &Tensor,
    first: &[Vec<f32>],
    ids: &[u64],
) -> Result<Warnings, Failure> {
    let rows = ids.len();
    let reversed: Vec<u32> = (0..rows as u32).rev().collect();
    let order = Tensor::new(reversed, images.device())?;
    let images_again = images.contiguous()?.index_select(&order, 0)?;
    let cut = rows / 3;
    let mut again = Vec::with_capacity(rows);
    for (start, length) in [(0, cut), (cut, rows - cut)] {
        if length > 0 {
            again.extend(logits(plain, &images_again.narrow(0, start, length)?)?);
        }
    }
    again.reverse();
    let rounding = ROUNDING[usize::from(!images.device().is_cpu())];
    let mut changed = (0..rows).filter(|&row| !agree(&first[row], &again[row], rounding));
    let Some(row) = changed.next() else {
        return Ok(Warnings::default());
    };
    // The same batch on the same network, where nothing but chance can make a difference.
    let random = differing(first, &logits(frozen, images)?, rounding);
    match random {
        0 => Err(Failure::Integrity(format!(
            "the attacked image {} is class {} in its batch and class {} in another; {} of {rows} images differ",
            ids[row],
            best(&first[row]),
            best(&again[row]),
            1 + changed.count(),
        ))),
        random => Ok(Warnings {
            random_outputs: Some(random),
            ..Warnings::default()
        }),
    }
}

/// Whether both give the same class, or one so close that rounding decides.
fn agree(first: &[f32], again: &[f32], rounding: f64) -> bool {
    let (one, other) = (best(first), best(again));
    let slack = rounding * largest(first);
    one == other || f64::from(first[one] - first[other]) <= slack
}

/// Runs an evaluation and fails if it changed a network's parameters or running statistics.
pub(crate) fn untouched<T>(networks: &[&Network], evaluate: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let digests = || {
        networks
            .iter()
            .map(|network| digest(network))
            .collect::<Result<Vec<_>, _>>()
    };
    let before = digests()?;
    let found = evaluate()?;
    if digests()? == before {
        Ok(found)
    } else {
        Err(Failure::Integrity(
            "the attack changed the network's parameters or running statistics".into(),
        ))
    }
}

/// BLAKE3 of all parameters and running statistics.
fn digest(network: &Network) -> Result<blake3::Hash, Failure> {
    let mut hasher = blake3::Hasher::new();
    for (name, tensor) in network.state()? {
        hasher.update(name.as_bytes());
        match tensor.dtype() {
            DType::I64 => {
                for value in tensor.flatten_all()?.to_vec1::<i64>()? {
                    hasher.update(&value.to_le_bytes());
                }
            }
            _ => {
                let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                hasher.update(&bytes);
            }
        }
    }
    Ok(hasher.finalize())
}
