//! Attacks a network and counts what is left of its accuracy.

use attacks::{Attack, Batch, Cost, Norm, Threat};
use candle_core::{DType, Device, Tensor};
use datasets::Split;
use models::{Classifier, Mode};
use random::Stream;

use crate::data::plain_batch;
use crate::failure::Failure;
use crate::progress::Bar;

/// Examples attacked together. Results do not depend on it.
const BATCH: usize = 100;
/// Slack of the integrity checks, in pixel units: rounding of f32 images near 1.
const SLACK: f64 = 1e-6;

/// What an evaluation found, example by example.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) cost: Cost,
    pub(crate) max_delta: f64,
    pub(crate) zero_gradients: u64,
}

/// What became of one example.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) example: u64,
    pub(crate) label: u32,
    pub(crate) predicted_clean: u32,
    pub(crate) predicted: u32,
    pub(crate) delta: f32,
}

impl Judged {
    /// Examples still classified correctly.
    pub(crate) fn correct(&self) -> u64 {
        self.outcomes.iter().filter(|it| it.predicted == it.label).count() as u64
    }

    /// The share of examples still classified correctly.
    pub(crate) fn accuracy(&self) -> f64 {
        self.correct() as f64 / self.outcomes.len() as f64
    }

    /// The share of examples classified correctly before the attack.
    pub(crate) fn clean_accuracy(&self) -> f64 {
        let correct = self.outcomes.iter().filter(|it| it.predicted_clean == it.label).count();
        correct as f64 / self.outcomes.len() as f64
    }
}

/// Attacks `source` and counts on `target`; the two are the same network unless images are
/// transferred. Fails if an image left the threat model or `[0, 1]`, or a logit is not finite.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different thing, and two callers do not make a struct"
)]
pub(crate) fn judge(
    source: &dyn Classifier,
    target: &dyn Classifier,
    attack: &dyn Attack,
    threat: &Threat,
    split: &Split,
    indices: &[usize],
    random: &Stream,
    device: &Device,
    bar: &Bar,
) -> Result<Judged, Failure> {
    let mut judged = Judged::default();
    let mut waiting: Vec<&[usize]> = indices.chunks(BATCH).rev().collect();
    while let Some(rows) = waiting.pop() {
        if bar.interrupted() {
            return Err(Failure::Interrupted);
        }
        let batch = plain_batch(split, rows, device)?;
        let attacked = || -> Result<_, Failure> {
            let perturbed = attack.perturb(source, &batch, threat, random)?;
            let clean = predictions(target, &batch.images)?;
            let attacked = predictions(target, &perturbed.images)?;
            Ok((perturbed, clean, attacked))
        };
        let (perturbed, clean, attacked) = match attacked() {
            // Results do not depend on the batch, so a card that is too small takes half of it.
            Err(failure) if rows.len() > 1 && kernels::device::is_out_of_memory(&failure) => {
                let (first, second) = rows.split_at(rows.len() / 2);
                waiting.extend([second, first]);
                continue;
            }
            attacked => attacked?,
        };
        let deltas = check(&batch, &perturbed.images, threat)?;
        let labels: Vec<u32> = batch.labels.to_vec1()?;
        for row in 0..rows.len() {
            judged.outcomes.push(Outcome {
                example: batch.ids[row],
                label: labels[row],
                predicted_clean: clean[row],
                predicted: attacked[row],
                delta: deltas[row] as f32,
            });
        }
        judged.cost += perturbed.cost;
        judged.cost += Cost {
            forwards: 2 * rows.len() as u64,
            backwards: 0,
        };
        judged.max_delta = deltas.into_iter().fold(judged.max_delta, f64::max);
        judged.zero_gradients += perturbed.zero_gradients;
        bar.note(|| format!("{} of {} images", judged.outcomes.len(), indices.len()));
    }
    Ok(judged)
}

/// The class with the largest logit, the first on ties.
fn predictions(classifier: &dyn Classifier, images: &Tensor) -> Result<Vec<u32>, Failure> {
    let logits: Vec<Vec<f32>> = classifier.logits(images, Mode::Eval)?.to_dtype(DType::F32)?.to_vec2()?;
    let mut classes = Vec::with_capacity(logits.len());
    for row in logits {
        if let Some(logit) = row.iter().find(|logit| !logit.is_finite()) {
            return Err(Failure::Integrity(format!("a logit is {logit}")));
        }
        let mut best = 0;
        for (class, logit) in row.iter().enumerate() {
            if *logit > row[best] {
                best = class;
            }
        }
        classes.push(best as u32);
    }
    Ok(classes)
}

/// The norm of each perturbation. Fails on an image outside the threat model or `[0, 1]`.
fn check(batch: &Batch, attacked: &Tensor, threat: &Threat) -> Result<Vec<f64>, Failure> {
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

#[cfg(test)]
mod tests {
    use attacks::{Description, Perturbed, Pixels};
    use models::FromModule;

    use super::*;

    /// Adds the same to every pixel.
    #[derive(Debug)]
    struct Shift(f64);

    impl Attack for Shift {
        fn perturb(&self, _: &dyn Classifier, batch: &Batch, _: &Threat, _: &Stream) -> candle_core::Result<Perturbed> {
            let images = (&batch.images + self.0)?;
            Ok(Perturbed {
                images,
                cost: Cost::default(),
                zero_gradients: 0,
                queries: None,
            })
        }

        fn describe(&self) -> Description {
            Description::default()
        }
    }

    /// Two images of two pixels, 0.4 and 0.6, and a classifier that compares the first pixel with ½.
    fn shifted_by(shift: f64, epsilon: Pixels, slope: f32) -> Result<Judged, Failure> {
        let split = Split::new([1, 1, 2], 5, vec![2, 2, 3, 3], vec![0, 1]).unwrap();
        let threat = Threat {
            norm: Norm::Linf,
            epsilon,
        };
        let module = move |images: &Tensor| {
            let pixel = images.flatten_from(1)?.narrow(1, 0, 1)?;
            let other = pixel.affine(0.0, f64::from(slope) / 2.0)?;
            Tensor::cat(&[other, (pixel * f64::from(slope))?], 1)
        };
        let network = FromModule {
            module: Func(module),
            classes: 2,
        };
        let random = Stream::new(0);
        judge(
            &network,
            &network,
            &Shift(shift),
            &threat,
            &split,
            &[0, 1],
            &random,
            &Device::Cpu,
            &Bar::hidden(),
        )
    }

    struct Func<F>(F);

    impl<F: Fn(&Tensor) -> candle_core::Result<Tensor>> candle_core::Module for Func<F> {
        fn forward(&self, images: &Tensor) -> candle_core::Result<Tensor> {
            (self.0)(images)
        }
    }

    #[test]
    fn what_is_left_is_counted() {
        let judged = shifted_by(0.2, Pixels::new(1, 4), 1.0).unwrap();
        assert_eq!((judged.clean_accuracy(), judged.accuracy()), (1.0, 0.5));
        assert!((judged.max_delta - 0.2).abs() < 1e-6, "{}", judged.max_delta);
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let refused = |result: Result<Judged, Failure>, part: &str| match result {
            Err(Failure::Integrity(message)) => assert!(message.contains(part), "{message}"),
            other => panic!("{other:?}"),
        };
        refused(shifted_by(0.2, Pixels::new(1, 10), 1.0), "further than 0.1");
        refused(shifted_by(0.5, Pixels::new(1, 1), 1.0), "outside [0, 1]");
        refused(shifted_by(f64::NAN, Pixels::new(1, 1), 1.0), "NaN");
        refused(shifted_by(0.0, Pixels::new(1, 1), f32::INFINITY), "a logit is");
    }
}
