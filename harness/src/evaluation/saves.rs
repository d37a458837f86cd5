//! How far an evaluation is, on disk: what a killed one goes on from. The same bytes come out as from one that was not.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use attacks::{Cost, Progress, Survivors};
use candle_core::{Device, Tensor};
use runs::checkpoint;
use serde::{Deserialize, Serialize};

use super::{Begun, Judged, Task};
use crate::failure::Failure;

/// Where an evaluation is saved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saves<'a> {
    pub(crate) file: &'a Path,
    /// The evaluation cell.
    pub(crate) key: &'a str,
    /// After how much time the next save is due: at most this much work is lost when the process is killed, but for
    /// one attack on one batch.
    pub(crate) every: Duration,
}

/// When the next save is due.
#[derive(Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Whether a save is due; if so, the time starts anew.
    pub(super) fn is_due(&mut self, task: &Task<'_>) -> bool {
        let due = task.saves.is_some_and(|saves| self.0.elapsed() >= saves.every);
        if due {
            self.0 = Instant::now();
        }
        due
    }
}

/// What stands in the file beside tensors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    key: String,
    judged: Judged,
    batch: Option<Within>,
}

/// Where AutoAttack stands within a batch.
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
pub(super) fn save(task: &Task<'_>, judged: &Judged, begun: Option<&Begun>) -> Result<(), Failure> {
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
    if !judged.images.is_empty() {
        tensors.insert(KEPT.to_string(), Tensor::cat(&judged.images, 0)?);
    }
    let judged = Judged {
        outcomes: judged.outcomes.clone(),
        images: Vec::new(),
        ..*judged
    };
    let state = State {
        key: saves.key.to_string(),
        judged,
        batch,
    };
    Ok(checkpoint::save_sealed(saves.file, &tensors, &state)?)
}

impl Saves<'_> {
    /// What was saved; nothing done if nothing was, or something else, or if it is damaged: what is judged anew comes
    /// to the same.
    pub(super) fn load(&self, task: &Task<'_>) -> (Judged, Option<Begun>) {
        let nothing = (Judged::default(), None);
        if !self.file.exists() {
            return nothing;
        }
        match self.read(task.device, task.keep_images) {
            Ok(Some(found)) => found,
            Ok(None) => nothing,
            Err(error) => {
                task.bar
                    .say(&format!("warning: {error:#}; that evaluation starts anew"));
                nothing
            }
        }
    }

    fn read(&self, device: &Device, keep: usize) -> anyhow::Result<Option<(Judged, Option<Begun>)>> {
        let (mut tensors, state): (BTreeMap<String, Tensor>, State) = checkpoint::load_sealed(self.file, device)?;
        let file = self.file.display();
        if state.key != self.key {
            return Ok(None);
        }
        let mut take = |name: &str| {
            let missing = || anyhow!("{file} lacks `{name}`; delete it and run again");
            tensors.remove(name).ok_or_else(missing)
        };
        let mut judged = state.judged;
        let kept = keep.min(judged.outcomes.len());
        if kept > 0 {
            let images = take(KEPT)?.to_device(&Device::Cpu)?;
            let there = images.dims().first().copied().unwrap_or(0);
            anyhow::ensure!(there == kept, "{file} holds {there} images, not {kept}");
            judged.images = vec![images];
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
        Ok(Some((judged, begun)))
    }
}

/// Passes as plain data.
pub(super) mod cost {
    use attacks::Cost;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(cost: &Cost, serializer: S) -> Result<S::Ok, S::Error> {
        [cost.forwards, cost.backwards].serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cost, D::Error> {
        let [forwards, backwards] = <[u64; 2]>::deserialize(deserializer)?;
        Ok(Cost { forwards, backwards })
    }
}
