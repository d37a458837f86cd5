//! Logits of images, and predictions from them.

use candle_core::{DType, Tensor};
use models::{Classifier, Mode};

use crate::failure::Failure;

/// The logits of images, all finite.
pub(crate) fn logits(classifier: &dyn Classifier, images: &Tensor) -> Result<Vec<Vec<f32>>, Failure> {
    let logits: Vec<Vec<f32>> = classifier.logits(images, Mode::Eval)?.to_dtype(DType::F32)?.to_vec2()?;
    match logits.iter().flatten().find(|logit| !logit.is_finite()) {
        Some(logit) => Err(Failure::Integrity(format!("a logit is {logit}"))),
        None => Ok(logits),
    }
}

/// The class with the largest logit, the first on ties.
pub(crate) fn classes(logits: &[Vec<f32>]) -> Vec<u32> {
    logits.iter().map(|row| best(row) as u32).collect()
}

/// The predicted classes of images.
pub(crate) fn predictions(classifier: &dyn Classifier, images: &Tensor) -> Result<Vec<u32>, Failure> {
    Ok(classes(&logits(classifier, images)?))
}

pub(super) fn best(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, class| if logits[class] > logits[best] { class } else { best })
}

pub(super) fn largest(logits: &[f32]) -> f64 {
    logits
        .iter()
        .fold(0.0, |largest, logit| f64::from(logit.abs()).max(largest))
}

/// How many images have different logits in the second pass.
pub(super) fn differing(first: &[Vec<f32>], second: &[Vec<f32>], rounding: f64) -> u64 {
    let differs = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        let slack = rounding * largest(a);
        a.iter().zip(b).any(|(a, b)| f64::from((a - b).abs()) > slack)
    };
    first.iter().zip(second).filter(|&pair| differs(pair)).count() as u64
}
