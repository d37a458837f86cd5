//! Attacks a network and measures its remaining accuracy.
//!
//! An evaluation goes batch by batch and can be stopped between two batches, and between two attacks of AutoAttack. What
//! it has found so far is saved now and then, and it continues from there.

use attacks::{Attack, Batch, BatchNorm, Cost, Perturbed, Probe, Progress, Queries};
use candle_core::Device;
use models::Classifier;

use super::batch::batch;
use super::checks::{check_again, check_images};
use super::examine::examine;
use super::logits::{classes, logits};
use super::outcome::{Begun, Evaluated, Outcome};
use super::saves::{Clock, save};
use super::task::{Scrutiny, Task};
use super::warnings::Warnings;
use crate::compute::data::plain_batch;
use crate::failure::Failure;

/// Queries that an attack may ask about one image; `None` if it is no query attack.
pub(crate) fn query_budget(attack: &dyn Attack, classes: usize) -> Option<u64> {
    let ceiling = attack.ceiling(classes).filter(|_| attack.by_queries())?;
    // The clean image is classified as well, which does not count as a query.
    Some(ceiling.forwards - 1)
}

/// Attacks and counts. Fails if a rule is broken: an image outside the threat model or `[0, 1]`, a number that is
/// not finite, or a prediction that changes in another batch.
pub(crate) fn evaluate(task: &Task<'_>) -> Result<Evaluated, Failure> {
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
    let (mut evaluated, mut begun) = match &task.saves {
        Some(saves) => saves.load(task),
        None => (Evaluated::default(), None),
    };
    let mut clock = Clock::start();
    let left = &task.indices[evaluated.outcomes.len()..];
    let first = begun.as_ref().map_or(0, |begun| begun.progress.broken_by.len());
    let mut waiting: Vec<&[usize]> = left[first..].chunks(batch()).rev().collect();
    if first > 0 {
        waiting.push(&left[..first]);
    }
    while let Some(rows) = waiting.pop() {
        if task.bar.interrupted() {
            save(task, &evaluated, None)?;
            return Err(Failure::Interrupted);
        }
        if clock.is_due(task) {
            save(task, &evaluated, None)?;
        }
        let batch = plain_batch(task.split, rows, task.device)?;
        let resumed = begun.take();
        let keep = task.keep_images.saturating_sub(evaluated.outcomes.len());
        let found = perturb(task, source, &batch, resumed, &mut clock, &evaluated)
            .and_then(|perturbed| evaluate_batch(task, target, &batch, &perturbed, keep));
        match found {
            // Results do not depend on the batch, so a card that is too small takes half of it.
            Err(failure) if rows.len() > 1 && kernels::device::is_out_of_memory(&failure) => {
                let (first, second) = rows.split_at(rows.len() / 2);
                waiting.extend([second, first]);
            }
            found => evaluated.add(found?),
        }
        let done = evaluated.outcomes.len();
        if task.scrutiny != Scrutiny::Count {
            task.bar.reach(done as u64);
        }
        task.bar.note(|| format!("{done} of {} images", task.indices.len()));
    }
    Ok(evaluated)
}

/// Attacks a batch; AutoAttack attack by attack, with a save between two of them where one is due.
fn perturb(
    task: &Task<'_>,
    source: &dyn Classifier,
    batch: &Batch,
    resumed: Option<Begun>,
    clock: &mut Clock,
    evaluated: &Evaluated,
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
            save(task, evaluated, Some(&begun))?;
        }
        if stop {
            return Err(Failure::Interrupted);
        }
    }
    Ok(Perturbed {
        cost: cost(&probe),
        zero_gradients: progress.survivors.stalled.iter().filter(|&&stalled| stalled).count() as u64,
        images: progress.survivors.images,
        queries: None,
    })
}

fn evaluate_batch(
    task: &Task<'_>,
    target: &dyn Classifier,
    batch: &Batch,
    perturbed: &Perturbed,
    keep: usize,
) -> Result<Evaluated, Failure> {
    let deltas = check_images(batch, &perturbed.images, task.threat)?;
    let clean = logits(target, &batch.images)?;
    let attacked = logits(target, &perturbed.images)?;
    let mut warnings = Warnings::default();
    if task.scrutiny != Scrutiny::Count {
        warnings += check_again(task.target, target, &perturbed.images, &attacked, &batch.ids)?;
    }
    let mut zero_gradients = perturbed.zero_gradients;
    if task.scrutiny == Scrutiny::Network {
        let examined = examine(target, batch, task.threat, &clean)?;
        zero_gradients += examined.zero_gradients;
        warnings = Warnings {
            random_outputs: warnings.random_outputs.max(examined.warnings.random_outputs),
            ..examined.warnings
        };
    }
    let labels: Vec<u32> = batch.labels.to_vec1()?;
    let (clean, predicted) = (classes(&clean), classes(&attacked));
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
    Ok(Evaluated {
        outcomes: outcomes.collect(),
        cost: perturbed.cost,
        max_delta: deltas.iter().copied().fold(0.0, f64::max),
        zero_gradients,
        warnings,
        images: match keep.min(batch.ids.len()) {
            0 => Vec::new(),
            keep => vec![perturbed.images.narrow(0, 0, keep)?.to_device(&Device::Cpu)?],
        },
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
