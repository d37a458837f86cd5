//! What a cell will cost, before it is run: passes through the network, counted, and seconds,
//! estimated.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use anyhow::Result;
use attacks::{Batch, Cost};
use candle_core::{DType, Device, Tensor};
use defenses::{Length, Memory, Step};
use models::{Classifier, Mode};
use plan::{Evaluation, Training};
use random::Stream;
use serde::Serialize;

use crate::compute::data::Data;

/// A linear network: the passes a method makes hardly depend on the network, and this one is cheap.
struct Probe {
    /// (K, pixels).
    weights: Tensor,
}

impl Classifier for Probe {
    fn logits(&self, images: &Tensor, _: Mode<'_>) -> candle_core::Result<Tensor> {
        // Not a product of matrices: before each, Candle asks the system how many processors there are, and that takes
        // longer than all of this.
        images
            .flatten_from(1)?
            .unsqueeze(1)?
            .broadcast_mul(&self.weights)?
            .sum(2)
    }

    fn classes(&self) -> usize {
        self.weights.dims()[0]
    }
}

/// The network, and two images of the classes it takes them for: a method spends less on what is wrong anyway.
fn probe(image: [usize; 3], classes: usize) -> Result<(Probe, Batch)> {
    let random = Stream::new(0);
    let len = image.iter().product();
    let weights = random.normal(&[0], len * classes);
    let pixels = random.at(1).uniform(&[0, 1], len);
    let [c, h, w] = image;
    let probe = Probe {
        weights: Tensor::from_vec(weights, (classes, len), &Device::Cpu)?,
    };
    let images = Tensor::from_vec(pixels, (2, c, h, w), &Device::Cpu)?;
    let batch = Batch {
        labels: probe.logits(&images, Mode::Eval)?.argmax(1)?,
        images,
        ids: vec![0, 1],
    };
    Ok((probe, batch))
}

/// Counts passes. Cells that differ by seed or network alone are tried once.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    /// What two examples cost, by everything it depends on.
    known: HashMap<String, Cost>,
}

impl Counter {
    /// The passes of a whole training, without the choice of its best checkpoint.
    pub(crate) fn training(&mut self, cell: &Training, data: &Data) -> Result<Cost> {
        let examples = match cell.recipe.length {
            Length::Epochs(epochs) => epochs.saturating_mul(data.epoch(cell.supervision.unlabeled) as u64),
            Length::Steps(steps) => steps.saturating_mul(cell.recipe.batch as u64),
        };
        let warmup = cell.recipe.awp.map_or(u64::MAX, |awp| awp.warmup);
        let plain = warmup
            .saturating_mul(data.epoch(cell.supervision.unlabeled) as u64)
            .min(examples);
        let mut total = Cost::default();
        for (examples, evaluations) in [(plain, 1), (examples - plain, 2)] {
            if examples > 0 {
                let two = self.two_trained(cell, evaluations)?;
                total += Cost {
                    forwards: two.forwards.saturating_mul(examples) / 2,
                    backwards: two.backwards.saturating_mul(examples) / 2,
                };
            }
        }
        Ok(total)
    }

    /// The passes of a training step on two examples that evaluates its objective so often.
    fn two_trained(&mut self, cell: &Training, evaluations: u64) -> Result<Cost> {
        let (setting, defense) = (&cell.setting, &cell.defense);
        let what = (
            defense.name,
            &defense.config,
            setting.threat,
            setting.image,
            setting.classes,
            evaluations,
        );
        self.two(&what, || {
            let (probe, batch) = probe(setting.image, setting.classes)?;
            let mut memory: Memory = defense.method.memory(2);
            let mut step = Step::new(&probe, &batch, &setting.threat, Stream::new(0), 0, &mut memory);
            // Which examples a teacher sets apart is not known yet, so none is.
            step.teacher.groups = Some(vec![None; 2]);
            for _ in 0..evaluations {
                defense.method.objective(&mut step)?;
                step.again();
            }
            Ok(Cost {
                forwards: step.cost.forwards,
                backwards: step.cost.backwards + 2 * evaluations,
            })
        })
    }

    /// The passes of an evaluation; where an attack leaves broken examples alone, those if none breaks.
    pub(crate) fn evaluation(&mut self, cell: &Evaluation, target: &Training, data: &Data) -> Result<Cost> {
        let (setting, attack) = (&target.setting, &cell.attack);
        let what = (attack.name, &attack.config, cell.threat, setting.image, setting.classes);
        let two = self.two(&what, || match attack.method.ceiling(setting.classes) {
            Some(cost) => Ok(Cost {
                forwards: 2 * cost.forwards,
                backwards: 2 * cost.backwards,
            }),
            None => {
                let (probe, batch) = probe(setting.image, setting.classes)?;
                Ok(attack
                    .method
                    .perturb(&probe, &batch, &cell.threat, &Stream::new(0))?
                    .cost)
            }
        })?;
        let examples = data.test.len() as u64;
        // The clean and the attacked image are classified as well, that one twice; at clean images the network is examined.
        let (forwards, backwards) = match attack.name {
            "natural" => (5, 1),
            _ => (3, 0),
        };
        Ok(Cost {
            forwards: (two.forwards + 2 * forwards).saturating_mul(examples) / 2,
            backwards: (two.backwards + 2 * backwards).saturating_mul(examples) / 2,
        })
    }

    fn two(&mut self, what: &impl Serialize, count: impl FnOnce() -> Result<Cost>) -> Result<Cost> {
        let what = serde_json::to_string(what)?;
        if let Some(cost) = self.known.get(&what) {
            return Ok(*cost);
        }
        let cost = count()?;
        self.known.insert(what, cost);
        Ok(cost)
    }
}

/// Seconds per pass of one image through each network, measured once.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    seconds: BTreeMap<String, f64>,
}

impl Clock {
    /// An estimate of the seconds that these passes take, a backward one as long as a forward one.
    pub(crate) fn estimate(&mut self, training: &Training, cost: Cost) -> Result<f64> {
        let setting = &training.setting;
        let per_pass = match self.seconds.get(&training.network) {
            Some(seconds) => *seconds,
            None => {
                let network = training.architecture.build(&Device::Cpu, &Stream::new(0))?;
                let [c, h, w] = setting.image;
                const IMAGES: usize = 4;
                let images = Tensor::zeros((IMAGES, c, h, w), DType::F32, &Device::Cpu)?;
                network.logits(&images, Mode::Eval)?;
                let start = Instant::now();
                network.logits(&images, Mode::Eval)?;
                let seconds = start.elapsed().as_secs_f64() / IMAGES as f64;
                self.seconds.insert(training.network.clone(), seconds);
                seconds
            }
        };
        Ok((cost.forwards + cost.backwards) as f64 * per_pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MMA searches for the margin of images that are right, and only of those.
    #[test]
    fn the_probe_is_right() {
        let (probe, batch) = probe([3, 4, 4], 5).unwrap();
        let logits = probe.logits(&batch.images, Mode::Eval).unwrap();
        assert_eq!(logits.dims(), [2, 5]);
        let said: Vec<u32> = logits.argmax(1).unwrap().to_vec1().unwrap();
        assert_eq!(said, batch.labels.to_vec1::<u32>().unwrap());
        // Rows of weights are classes.
        let of = |class: usize| probe.weights.get(class).unwrap();
        let first = batch.images.get(0).unwrap().flatten_all().unwrap();
        let by_hand = (of(3) * first).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        let theirs = logits.get(0).unwrap().to_vec1::<f32>().unwrap()[3];
        assert!((by_hand - theirs).abs() < 1e-5, "{by_hand} and {theirs}");
    }
}
