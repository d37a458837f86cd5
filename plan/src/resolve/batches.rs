//! Whether every batch of a training has the images that the network needs.

use defenses::{Length, Recipe};
use models::Architecture;
use serde_json::Value;

use super::scope::{Checked, Scope};
use crate::cell::Supervision;

impl Scope<'_> {
    /// Refuses a batch of one image where a batch normalisation sees one pixel of each: it has no variance. Without this
    /// a training fails at the end of its first epoch, since the last batch holds what is left. `field` is the defense
    /// and `own` its recipe.
    pub(super) fn check_batches(
        &self,
        field: &str,
        own: Option<&Value>,
        recipe: &Recipe,
        architecture: &Architecture,
        supervision: &Supervision,
    ) -> Checked<()> {
        let Some(examples) = self.examples_per_epoch(supervision) else {
            return Ok(());
        };
        let batch = recipe.batch;
        let batches = examples.div_ceil(batch);
        let last = examples - (batches - 1) * batch;
        let reached = match recipe.length {
            Length::Epochs(epochs) => epochs > 0,
            Length::Steps(steps) => steps >= batches as u64,
        };
        if last != 1 || !reached || architecture.trains_on_one_image() {
            return Ok(());
        }
        let network = architecture.name();
        let problem = format!(
            "a batch normalisation of `{network}` sees one pixel of each image here, and one value has no variance"
        );
        let has_batch = |recipe: Option<&Value>| recipe.is_some_and(|recipe| recipe.get("batch").is_some());
        let place = if has_batch(own) {
            format!("{field}.recipe.batch")
        } else if has_batch(self.block.recipe.as_ref()) {
            "recipe.batch".to_string()
        } else {
            "dataset".to_string()
        };
        let message = if batch == 1 {
            format!("every batch has one image: {problem}; write 2 or more")
        } else {
            let more = self.block.dataset.validation + 1;
            format!(
                "{examples} training examples in batches of {batch} leave one image for the last batch: {problem}; choose \
                 another `batch`, or hold out one more example with `validation: {more}` in `dataset`"
            )
        };
        Err(self.error(&place, message))
    }

    /// Training examples of an epoch, as far as the data set's official size says. `None` with unlabeled ones, whose
    /// number a file decides.
    fn examples_per_epoch(&self, supervision: &Supervision) -> Option<usize> {
        if supervision.unlabeled.is_some() {
            return None;
        }
        let dataset = &self.block.dataset;
        let all = dataset.limit.train.unwrap_or(usize::MAX).min(self.entry.train);
        let left = all.checked_sub(dataset.validation).filter(|left| *left > 0)?;
        Some(dataset.labeled.unwrap_or(left).min(left)).filter(|examples| *examples > 0)
    }
}
