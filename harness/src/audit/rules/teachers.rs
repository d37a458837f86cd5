//! Teachers: are their predictions on record?

use std::path::Path;

use anyhow::Result;
use plan::{Cell, Training};
use storage::cell_folder::{self, State};

use crate::audit::run::{AuditedRun, Findings};
use crate::compute::training;
use crate::compute::training_set::{StoredPredictions, TEACHER};

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
        for breach in breaches(cell, epoch.ok(), &folder) {
            findings.breach(format!("{}: {breach}", run.relative(&folder)));
        }
    }
    Ok(())
}

/// What is wrong with the teacher's predictions that a finished training used. `epoch`: the epoch of its checkpoint.
fn breaches(cell: &Training, epoch: Option<u64>, folder: &Path) -> Vec<String> {
    let stored = match StoredPredictions::read(folder, &cell.key) {
        Ok(Some(stored)) => stored,
        Ok(None) => return vec![format!("{TEACHER} is missing")],
        Err(error) => return vec![format!("{error:#}")],
    };
    let mut breaches = Vec::new();
    let mut breach = |right: bool, text: &str| {
        if !right {
            breaches.push(format!("{TEACHER}: {text}"));
        }
    };
    let teacher = cell.supervision.teacher.as_ref().map(|teacher| &teacher.key);
    breach(
        teacher == Some(&stored.teacher),
        "another teacher than the matrix names",
    );
    breach(
        epoch == Some(stored.epoch),
        "another epoch than that of the teacher's checkpoint",
    );
    let classes = cell.setting.classes as u32;
    breach(
        stored.classes.iter().all(|class| *class < classes),
        "a class that the data set does not have",
    );
    breach(
        is_ascending(&stored.examples),
        "examples that repeat or are out of order",
    );
    let groups = [&stored.misclassified, &stored.correct].map(|group| group.as_deref().unwrap_or_default());
    let known = |example: &usize| stored.examples.binary_search(example).is_ok();
    let ordered = groups
        .iter()
        .all(|group| is_ascending(group) && group.iter().all(known));
    breach(
        ordered,
        "a group with an example that repeats or that has no prediction",
    );
    let apart = groups[0]
        .iter()
        .all(|example| groups[1].binary_search(example).is_err());
    breach(
        apart && groups[0].len() == groups[1].len(),
        "groups that overlap or differ in size",
    );
    breaches
}

fn is_ascending(examples: &[usize]) -> bool {
    examples.windows(2).all(|pair| pair[0] < pair[1])
}
