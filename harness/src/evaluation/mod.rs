//! Attacks a network and counts what is left of its accuracy.
//!
//! An evaluation goes batch by batch and can be stopped between two batches, and between two attacks of AutoAttack;
//! what it has found so far is saved now and then and gone on from (`saves`). What breaks a rule that every honest
//! result keeps fails it (`gates`); what only gives reason to doubt is counted (`doubts`).

mod doubts;
mod gates;
mod saves;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};

use attacks::{Attack, Batch, BatchNorm, Cost, Perturbed, Probe, Progress, Queries, Threat};
use candle_core::{Device, Tensor};
use datasets::Split;
use models::Classifier;
use random::Stream;
use serde::{Deserialize, Serialize};

pub(crate) use self::doubts::Doubts;
pub(crate) use self::gates::{SLACK, predictions, untouched};
pub(crate) use self::saves::Saves;
use crate::data::plain_batch;
use crate::failure::Failure;
use crate::progress::Bar;

/// Examples attacked together unless told otherwise.
const BATCH: usize = 100;
/// How many examples this process attacks together. Results do not depend on it.
static TOGETHER: AtomicUsize = AtomicUsize::new(BATCH);

/// Sets how many examples this process attacks together.
pub(crate) fn set_batch(examples: usize) {
    TOGETHER.store(examples, Ordering::Relaxed);
}

/// How many examples this process attacks together.
pub(crate) fn batch() -> usize {
    TOGETHER.load(Ordering::Relaxed)
}

/// What is attacked, how, and on which images.
pub(crate) struct Task<'a> {
    /// The network on which images are made, if not the target.
    pub(crate) source: Option<&'a dyn Classifier>,
    /// The network on which they are counted.
    pub(crate) target: &'a dyn Classifier,
    pub(crate) attack: &'a dyn Attack,
    pub(crate) threat: &'a Threat,
    pub(crate) split: &'a Split,
    pub(crate) indices: &'a [usize],
    pub(crate) random: &'a Stream,
    pub(crate) device: &'a Device,
    pub(crate) bar: &'a Bar,
    pub(crate) scrutiny: Scrutiny,
    /// Where it is saved how far the evaluation is; nowhere unless given.
    pub(crate) saves: Option<Saves<'a>>,
    /// Of how many images, from the first, the attacked ones are kept.
    pub(crate) keep_images: usize,
}

/// How closely an evaluation is looked at beyond the rules for its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scrutiny {
    /// Not at all: a look during training.
    Count,
    /// Attacked images are classified again, in other company.
    Again,
    /// The network itself is examined as well, on the clean images.
    Network,
}

/// What an evaluation found, example by example.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Judged {
    pub(crate) outcomes: Vec<Outcome>,
    /// The attack's own passes.
    #[serde(with = "saves::cost")]
    pub(crate) cost: Cost,
    pub(crate) max_delta: f64,
    pub(crate) zero_gradients: u64,
    pub(crate) doubts: Doubts,
    /// The attacked images that were asked for, batch by batch on the CPU.
    #[serde(skip)]
    pub(crate) images: Vec<Tensor>,
}

/// What became of one example.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outcome {
    pub(crate) example: u64,
    pub(crate) label: u32,
    pub(crate) predicted_clean: u32,
    pub(crate) predicted: u32,
    pub(crate) delta: f32,
    /// What a query attack asked: in all, and until success.
    pub(crate) queries: Option<(u64, Option<u64>)>,
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

    /// The outcomes as they are stored.
    pub(crate) fn stored(&self, cell: &str) -> Vec<results::Outcome> {
        let stored = self.outcomes.iter().map(|it| results::Outcome {
            cell: cell.to_string(),
            example: it.example,
            label: it.label,
            predicted_clean: Some(it.predicted_clean),
            predicted: it.predicted,
            correct: it.predicted == it.label,
            delta: it.delta,
            queries: it.queries.map(|(asked, _)| asked),
            queries_until_success: it.queries.and_then(|(_, until)| until),
        });
        stored.collect()
    }

    /// The row with what was found. `budget`: queries that the attack may ask about one image.
    pub(crate) fn complete(&self, row: results::Row, budget: Option<u64>) -> results::Row {
        let row = results::Row {
            forwards: Some(self.cost.forwards),
            backwards: Some(self.cost.backwards),
            max_delta: Some(self.max_delta),
            zero_gradients: Some(self.zero_gradients),
            vanishing_gradients: self.doubts.vanishing_gradients,
            random_outputs: self.doubts.random_outputs,
            softmax_outputs: self.doubts.softmax_outputs,
            ..row
        };
        let asked: Option<u64> = self.outcomes.iter().map(|it| Some(it.queries?.0)).sum();
        let row = match asked {
            Some(asked) if !self.outcomes.is_empty() => {
                let until = self.outcomes.iter().filter_map(|it| it.queries?.1);
                row.with_queries(asked, budget, &until.collect::<Vec<_>>())
            }
            _ => row,
        };
        row.with_count(self.outcomes.len() as u64, self.correct())
    }
}

/// Queries that an attack may ask about one image; `None` if it is no query attack.
pub(crate) fn query_budget(attack: &dyn Attack, classes: usize) -> Option<u64> {
    let ceiling = attack.ceiling(classes).filter(|_| attack.by_queries())?;
    // The clean image is classified as well, and that is no query.
    Some(ceiling.forwards - 1)
}

/// Attacks and counts. Fails if a rule is broken: an image outside the threat model or `[0, 1]`, a number that is
/// not finite, or a prediction that another batch does not confirm.
pub(crate) fn judge(task: &Task<'_>) -> Result<Judged, Failure> {
    let source = task.source.unwrap_or(task.target);
    if source.classes() != task.target.classes() {
        return Err(Failure::Other(anyhow::anyhow!(
            "the source has {} classes and the target {}: images are not transferred between them",
            source.classes(),
            task.target.classes()
        )));
    }
    let frozen = task.target.freeze()?;
    let target = frozen.as_deref().unwrap_or(task.target);
    let (mut judged, mut begun) = match &task.saves {
        Some(saves) => saves.load(task),
        None => (Judged::default(), None),
    };
    let mut clock = saves::Clock::start();
    let left = &task.indices[judged.outcomes.len()..];
    let first = begun.as_ref().map_or(0, |begun| begun.progress.broken_by.len());
    let mut waiting: Vec<&[usize]> = left[first..].chunks(batch()).rev().collect();
    if first > 0 {
        waiting.push(&left[..first]);
    }
    while let Some(rows) = waiting.pop() {
        if task.bar.interrupted() {
            saves::save(task, &judged, None)?;
            return Err(Failure::Interrupted);
        }
        if clock.is_due(task) {
            saves::save(task, &judged, None)?;
        }
        let batch = plain_batch(task.split, rows, task.device)?;
        let resumed = begun.take();
        let keep = task.keep_images.saturating_sub(judged.outcomes.len());
        let found = perturb(task, source, &batch, resumed, &mut clock, &judged)
            .and_then(|perturbed| judge_batch(task, target, &batch, &perturbed, keep));
        match found {
            // Results do not depend on the batch, so a card that is too small takes half of it.
            Err(failure) if rows.len() > 1 && kernels::device::is_out_of_memory(&failure) => {
                let (first, second) = rows.split_at(rows.len() / 2);
                waiting.extend([second, first]);
            }
            found => judged.add(found?),
        }
        let done = judged.outcomes.len();
        if task.scrutiny != Scrutiny::Count {
            task.bar.reach(done as u64);
        }
        task.bar.note(|| format!("{done} of {} images", task.indices.len()));
    }
    Ok(judged)
}

impl Judged {
    fn add(&mut self, more: Self) {
        self.outcomes.extend(more.outcomes);
        self.cost += more.cost;
        self.max_delta = self.max_delta.max(more.max_delta);
        self.zero_gradients += more.zero_gradients;
        self.doubts += more.doubts;
        self.images.extend(more.images);
    }
}

/// Where AutoAttack stands within a batch, and what it has cost so far.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) progress: Progress,
    pub(crate) cost: Cost,
}

/// Attacks a batch; AutoAttack attack by attack, with a save between two of them where one is due.
fn perturb(
    task: &Task<'_>,
    source: &dyn Classifier,
    batch: &Batch,
    resumed: Option<Begun>,
    clock: &mut saves::Clock,
    judged: &Judged,
) -> Result<Perturbed, Failure> {
    let Some(attack) = task.attack.in_parts() else {
        return Ok(task.attack.perturb(source, batch, task.threat, task.random)?);
    };
    let mut probe = Probe::new(source, BatchNorm::Eval)?;
    let (mut progress, before) = match resumed {
        Some(begun) => (begun.progress, begun.cost),
        None => (Progress::begin(&mut probe, batch)?, Cost::default()),
    };
    let cost = |probe: &Probe<'_>| {
        let mut cost = before;
        cost += probe.cost();
        cost
    };
    while attack.advance(&mut probe, batch, task.threat, task.random, &mut progress)? {
        let stop = task.bar.interrupted();
        if stop || clock.is_due(task) {
            let begun = Begun {
                progress: progress.clone(),
                cost: cost(&probe),
            };
            saves::save(task, judged, Some(&begun))?;
        }
        if stop {
            return Err(Failure::Interrupted);
        }
    }
    Ok(Perturbed {
        cost: cost(&probe),
        zero_gradients: progress.survivors.stalled.iter().filter(|&&it| it).count() as u64,
        images: progress.survivors.images,
        queries: None,
    })
}

fn judge_batch(
    task: &Task<'_>,
    target: &dyn Classifier,
    batch: &Batch,
    perturbed: &Perturbed,
    keep: usize,
) -> Result<Judged, Failure> {
    let deltas = gates::check_images(batch, &perturbed.images, task.threat)?;
    let clean = gates::logits(target, &batch.images)?;
    let attacked = gates::logits(target, &perturbed.images)?;
    let mut doubts = Doubts::default();
    if task.scrutiny != Scrutiny::Count {
        doubts += gates::check_again(task.target, target, &perturbed.images, &attacked, &batch.ids)?;
    }
    let mut zero_gradients = perturbed.zero_gradients;
    if task.scrutiny == Scrutiny::Network {
        let examined = doubts::examine(target, batch, task.threat, &clean)?;
        zero_gradients += examined.zero_gradients;
        doubts = Doubts {
            random_outputs: doubts.random_outputs.max(examined.doubts.random_outputs),
            ..examined.doubts
        };
    }
    let labels: Vec<u32> = batch.labels.to_vec1()?;
    let (clean, predicted) = (gates::classes(&clean), gates::classes(&attacked));
    let queries = |row: usize| -> Option<(u64, Option<u64>)> {
        let Queries { asked, until_success } = perturbed.queries.as_ref()?[row];
        Some((asked, until_success))
    };
    let outcomes = (0..batch.ids.len()).map(|row| Outcome {
        example: batch.ids[row],
        label: labels[row],
        predicted_clean: clean[row],
        predicted: predicted[row],
        delta: deltas[row] as f32,
        queries: queries(row),
    });
    Ok(Judged {
        outcomes: outcomes.collect(),
        cost: perturbed.cost,
        max_delta: deltas.iter().copied().fold(0.0, f64::max),
        zero_gradients,
        doubts,
        images: match keep.min(batch.ids.len()) {
            0 => Vec::new(),
            keep => vec![perturbed.images.narrow(0, 0, keep)?.to_device(&Device::Cpu)?],
        },
    })
}
