//! Selection: are the checkpoints those that their rule chooses?

use anyhow::Result;
use plan::Cell;
use plan::matrix::SelectionSplit;
use runs::cell_folder::{self, State};

use crate::audit::run::{AuditedRun, Findings};
use crate::training;
use crate::work::row::planned_row;

/// Checks checkpoints, rows' selection and rows' epochs. A choice on test images is allowed and noted.
pub(super) fn selection(run: &AuditedRun, findings: &mut Findings) -> Result<()> {
    let plan = run.plan()?;
    for (i, cell) in plan.trainings.iter().enumerate() {
        let folder = plan.folder(&run.root, Cell::Training(i));
        if cell_folder::cell_state(plan, &run.root, Cell::Training(i)) != State::Done {
            continue;
        }
        for breach in training::breaches_of_selection(cell, &folder) {
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
        if let Ok(about) = training::read_about(&trained, evaluation.checkpoint)
            && row.epoch != Some(about.epoch)
        {
            findings.breach(format!("{name}: the row's epoch is not that of the checkpoint"));
        }
    }
    Ok(())
}
