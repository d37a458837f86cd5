//! Selection: are the checkpoints those that their rule chooses?

use std::path::Path;

use anyhow::{Context, Result};
use plan::matrix::{Checkpoint, SelectionSplit};
use plan::{Cell, Training};
use storage::cell_folder::{self, State};

use crate::audit::run::{AuditedRun, Findings};
use crate::compute::row::planned_row;
use crate::compute::training::{Epoch, HISTORY, Selected, read_about};

/// Checks checkpoints, rows' selection and rows' epochs. A choice on test images is allowed and noted.
pub(super) fn selection(run: &AuditedRun, findings: &mut Findings) -> Result<()> {
    let plan = run.plan()?;
    for (i, cell) in plan.trainings.iter().enumerate() {
        let folder = plan.folder(&run.root, Cell::Training(i));
        if cell_folder::cell_state(plan, &run.root, Cell::Training(i)) != State::Done {
            continue;
        }
        for breach in breaches(cell, &folder) {
            findings.breach(format!("{}: {breach}", run.relative(&folder)));
        }
        if cell.selection.split == Some(SelectionSplit::Test) {
            let name = &cell.slug;
            findings.notes.push(format!(
                "{name}: the best checkpoint was chosen on the test images; every table says so"
            ));
        }
    }
    for (evaluation, folder, found) in run.evaluations()? {
        let Ok((row, _)) = found else { continue };
        let expected = planned_row(plan, evaluation, &row.dataset_digest, row.verified);
        let name = run.relative(&folder);
        if row.selection != expected.selection {
            findings.breach(format!(
                "{name}: the row does not say on which images the checkpoint was chosen"
            ));
        }
        let trained = plan.folder(&run.root, Cell::Training(evaluation.target));
        if let Ok(about) = read_about(&trained, evaluation.checkpoint)
            && row.epoch != Some(about.epoch)
        {
            findings.breach(format!("{name}: the row's epoch is not that of the checkpoint"));
        }
    }
    Ok(())
}

/// What is wrong with the checkpoints of a finished training: the best must be the first of the epochs with the
/// highest robust accuracy on the selection split, the last must be the last.
fn breaches(cell: &Training, folder: &Path) -> Vec<String> {
    let read = || -> anyhow::Result<Vec<String>> {
        let mut breaches = Vec::new();
        let mut breach = |right: bool, text: &str| {
            if !right {
                breaches.push(text.to_string());
            }
        };
        let text = std::fs::read_to_string(folder.join(HISTORY)).context("cannot read the history")?;
        let history: Vec<Epoch> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        breach(
            history.iter().map(|epoch| epoch.epoch).eq(1..=history.len() as u64),
            "the history's epochs are not 1, 2, …",
        );
        let last = read_about(folder, Checkpoint::Last)?;
        breach(last.key == cell.key, "the last checkpoint is of another training");
        breach(
            history.last().is_some_and(|epoch| epoch.epoch == last.epoch),
            "the last checkpoint is not of the last epoch",
        );
        let mut best: Option<(u64, Selected)> = None;
        for epoch in &history {
            if let Some(selected) = epoch.selected
                && best.is_none_or(|(_, best)| selected.robust > best.robust)
            {
                best = Some((epoch.epoch, selected));
            }
        }
        breach(
            best.is_some() == cell.selection.split.is_some(),
            "the history does not say what the best checkpoint was chosen by",
        );
        if let Some((epoch, selected)) = best {
            let about = read_about(folder, Checkpoint::Best)?;
            breach(about.key == cell.key, "the best checkpoint is of another training");
            breach(
                about.epoch == epoch && about.selected == Some(selected),
                "the best checkpoint is not of the epoch with the highest robust accuracy on the selection split",
            );
        }
        Ok(breaches)
    };
    read().unwrap_or_else(|error| vec![format!("{error:#}")])
}
