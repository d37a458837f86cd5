//! Teachers: are their predictions on record?

use anyhow::Result;
use plan::Cell;
use runs::cell_folder::{self, State};

use crate::audit::run::{AuditedRun, Findings};
use crate::lessons;
use crate::training;

pub(super) fn teachers(run: &AuditedRun, findings: &mut Findings) -> Result<()> {
    let plan = run.plan()?;
    for (i, cell) in plan.trainings.iter().enumerate() {
        let Some(teacher) = &cell.supervision.teacher else {
            continue;
        };
        if cell_folder::cell_state(plan, &run.root, Cell::Training(i)) != State::Done {
            continue;
        }
        let folder = plan.folder(&run.root, Cell::Training(i));
        let asked = plan.folder(&run.root, Cell::Training(teacher.training));
        let epoch = training::read_about(&asked, teacher.checkpoint).map(|about| about.epoch);
        for breach in lessons::breaches(cell, epoch.ok(), &folder) {
            findings.breach(format!("{}: {breach}", run.relative(&folder)));
        }
    }
    Ok(())
}
