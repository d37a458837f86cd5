//! Checks of a comparison's lists and numbers, before anything is resolved.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde_json::{Map, Value};

use super::scope::{Checked, Scope};
use super::sweep::numbers;
use crate::cell::Training;
use crate::plan::Plan;

/// More evaluations than this in one block are a mistake.
const MOST_CELLS: usize = 1_000_000;

impl Scope<'_> {
    /// Notes repeated items and numbers out of range. Fails where nothing else can be looked at: for empty lists, too many
    /// cells and a threat model that cannot be.
    pub(super) fn check_lists(&self) -> Checked<()> {
        let block = self.block;
        let lists = [
            ("networks", block.networks.is_empty()),
            ("seeds", self.seeds.is_empty()),
            ("defenses", block.defenses.is_empty()),
            ("checkpoints", block.checkpoints.is_empty()),
            (
                "transfer.attacks",
                block
                    .transfer
                    .as_ref()
                    .is_some_and(|transfer| transfer.attacks.is_empty()),
            ),
        ];
        if let Some((field, _)) = lists.into_iter().find(|(_, empty)| *empty) {
            return Err(self.error(field, "an empty list: nothing would run"));
        }
        let repeated = [
            ("networks", repeat(&block.networks)),
            ("checkpoints", repeat(&block.checkpoints)),
            ("seeds", repeat(&self.seeds)),
        ];
        for (field, repeat) in repeated {
            if let Some((i, item)) = repeat {
                let message = format!("{item} is listed twice; leave one of them out");
                self.error(&format!("{field}[{i}]"), message);
            }
        }
        // A file of some kilobytes can name more cells than memory holds.
        let transferred = block.transfer.as_ref().map_or(0, |transfer| transfer.attacks.len());
        let attacks = 1 + block.attacks.len() + transferred;
        let values = |entry: &Map<String, Value>| entry.values().filter_map(numbers).map(Vec::len).max();
        let defenses = block.defenses.iter().map(|entry| values(entry).unwrap_or(1));
        let lists = [
            block.networks.len(),
            self.seeds.len(),
            defenses.sum(),
            block.checkpoints.len(),
            attacks,
        ];
        let cells = lists.into_iter().fold(1, usize::saturating_mul);
        if cells > MOST_CELLS {
            return Err(self.error(
                "defenses",
                format!("{cells} evaluations in one comparison; more than {MOST_CELLS} need several matrices"),
            ));
        }
        for &checkpoint in &block.checkpoints {
            // Recording the mistake is enough: nothing below depends on it.
            let _ = self.check_has_best("checkpoints", checkpoint);
        }
        self.check_sizes();
        if block.selection.every == 0 {
            self.error("selection.every", "must be at least 1 epoch");
        }
        block
            .threat
            .check()
            .map_err(|invalid| self.error(&format!("threat.{}", invalid.field), invalid.message))
    }

    /// Notes a cut of the data set that leaves nothing to train or test on.
    fn check_sizes(&self) {
        let dataset = &self.block.dataset;
        for (field, limit) in [("train", dataset.limit.train), ("test", dataset.limit.test)] {
            if limit == Some(0) {
                self.error(&format!("dataset.limit.{field}"), "0 images: nothing would run");
                return;
            }
        }
        let all = dataset
            .limit
            .train
            .map_or(self.entry.train, |limit| limit.min(self.entry.train));
        if dataset.validation >= all {
            let message = format!(
                "{} of {all} training examples cannot be held out; write a number below {all}",
                dataset.validation
            );
            self.error("dataset.validation", message);
        }
    }

    /// Fails if two defenses have the same label.
    pub(super) fn check_labels(&self, plan: &Plan, targets: &[usize]) -> Checked<()> {
        let mut seen = BTreeMap::new();
        for &target in targets {
            let Training { label, seed, key, .. } = &plan.trainings[target];
            if seen.insert((label, seed), key).is_some_and(|other| other != key) {
                let message = format!("two defenses are called `{label}`; give one another `label`");
                return Err(self.error("defenses", message));
            }
        }
        Ok(())
    }
}

/// The first repeated item, with its index.
fn repeat<T: PartialEq + Display>(items: &[T]) -> Option<(usize, String)> {
    let mut indexed = items.iter().enumerate();
    let (i, item) = indexed.find(|(i, item)| items[..*i].contains(item))?;
    Some((i, item.to_string()))
}
