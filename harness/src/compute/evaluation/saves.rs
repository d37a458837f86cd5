//! The progress of an evaluation on disk, from which a killed one continues. It gives the same bytes as one that was not
//! killed.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::anyhow;
use attacks::{Cost, Progress, Survivors};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use storage::checkpoint;

use super::outcome::{Begun, Evaluated, cost};
use super::task::{Saves, Task};
use crate::failure::Failure;

/// When the next save is due.
#[derive(Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Whether a save is due; if so, the time starts again.
    pub(super) fn is_due(&mut self, task: &Task<'_>) -> bool {
        let due = task.saves.is_some_and(|saves| self.0.elapsed() >= saves.every);
        if due {
            self.0 = Instant::now();
        }
        due
    }
}

/// What the file holds beside tensors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    key: String,
    #[serde(rename = "judged")]
    evaluated: Evaluated,
    batch: Option<Within>,
}

/// The progress of AutoAttack within a batch.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Within {
    done: usize,
    broken: Vec<bool>,
    stalled: Vec<bool>,
    broken_by: Vec<Option<usize>>,
    #[serde(with = "cost")]
    cost: Cost,
}

const IMAGES: &str = "images";
const LOGITS: &str = "clean_logits";
const KEPT: &str = "kept_images";

/// Saves finished batches and, if there is one, the batch at work.
pub(super) fn save(task: &Task<'_>, evaluated: &Evaluated, begun: Option<&Begun>) -> Result<(), Failure> {
    let Some(saves) = &task.saves else { return Ok(()) };
    let mut tensors = BTreeMap::new();
    let batch = begun.map(|Begun { progress, cost }| {
        tensors.insert(IMAGES.to_string(), progress.survivors.images.clone());
        tensors.insert(LOGITS.to_string(), progress.clean_logits.clone());
        Within {
            done: progress.done,
            broken: progress.survivors.broken.clone(),
            stalled: progress.survivors.stalled.clone(),
            broken_by: progress.broken_by.clone(),
            cost: *cost,
        }
    });
    if !evaluated.images.is_empty() {
        tensors.insert(KEPT.to_string(), Tensor::cat(&evaluated.images, 0)?);
    }
    let evaluated = Evaluated {
        outcomes: evaluated.outcomes.clone(),
        images: Vec::new(),
        ..*evaluated
    };
    let state = State {
        key: saves.key.to_string(),
        evaluated,
        batch,
    };
    Ok(checkpoint::save_sealed(saves.file, &tensors, &state)?)
}

impl Saves<'_> {
    /// What was saved. Nothing is done yet if nothing was saved, if it belongs to something else, or if it is damaged:
    /// starting again gives the same.
    pub(super) fn load(&self, task: &Task<'_>) -> (Evaluated, Option<Begun>) {
        let nothing = (Evaluated::default(), None);
        if !self.file.exists() {
            return nothing;
        }
        match self.read(task.device, task.keep_images) {
            Ok(Some(found)) => found,
            Ok(None) => nothing,
            Err(error) => {
                task.bar
                    .say(&format!("warning: {error:#}; that evaluation starts again"));
                nothing
            }
        }
    }

    fn read(&self, device: &Device, keep: usize) -> anyhow::Result<Option<(Evaluated, Option<Begun>)>> {
        let (mut tensors, state): (BTreeMap<String, Tensor>, State) = checkpoint::load_sealed(self.file, device)?;
        let file = self.file.display();
        if state.key != self.key {
            return Ok(None);
        }
        let mut take = |name: &str| {
            let missing = || anyhow!("{file} lacks `{name}`; delete it and run again");
            tensors.remove(name).ok_or_else(missing)
        };
        let mut evaluated = state.evaluated;
        let kept = keep.min(evaluated.outcomes.len());
        if kept > 0 {
            let images = take(KEPT)?.to_device(&Device::Cpu)?;
            let there = images.dims().first().copied().unwrap_or(0);
            anyhow::ensure!(there == kept, "{file} holds {there} images, not {kept}");
            evaluated.images = vec![images];
        }
        let begun = match state.batch {
            None => None,
            Some(within) => Some(Begun {
                progress: Progress {
                    done: within.done,
                    survivors: Survivors {
                        images: take(IMAGES)?,
                        broken: within.broken,
                        stalled: within.stalled,
                    },
                    broken_by: within.broken_by,
                    clean_logits: take(LOGITS)?,
                },
                cost: within.cost,
            }),
        };
        Ok(Some((evaluated, begun)))
    }
}
