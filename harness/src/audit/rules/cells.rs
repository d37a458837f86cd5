//! Files, plan and cells: is the run complete and unmodified?

use std::collections::BTreeSet;

use anyhow::Result;
use plan::{Plan, key_of_text};
use serde_json::Value;
use storage::cell_folder::{self, FileMark, State};
use storage::manifest;

use crate::audit::run::{AuditedRun, Findings};
use crate::compute::provenance;

pub(super) fn files(run: &AuditedRun, findings: &mut Findings) -> Result<()> {
    let there: BTreeSet<String> = manifest::walk(&run.root)?.into_iter().collect();
    for (path, mark) in &run.manifest.files {
        let file = run.root.join(path);
        match FileMark::of(&file) {
            Ok(now) if now == *mark => {}
            Ok(_) => findings.breach(format!("{path} has changed since it was written")),
            Err(_) if !file.exists() => findings.breach(format!("{path} is missing")),
            Err(error) => findings.breach(format!("{path}: {error:#}")),
        }
    }
    for path in there.iter().filter(|path| *path != manifest::FILE) {
        if !run.manifest.files.contains_key(path) {
            findings.breach(format!("{path} is no file of this run"));
        }
        // The manifest copies what a cell records, so the record itself must be checked.
        if let Some(cell) = path
            .strip_suffix(cell_folder::STATUS)
            .filter(|folder| folder.starts_with("cells/"))
        {
            match cell_folder::status(&run.root.join(cell)) {
                Err(error) => findings.breach(format!("{path}: {error:#}")),
                Ok(status) => {
                    for (name, mark) in status.map(|status| status.files).unwrap_or_default() {
                        if run.manifest.files.get(&format!("{cell}{name}")) != Some(&mark) {
                            findings.breach(format!("{path} and the manifest disagree about {name}"));
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

pub(super) fn plan(run: &AuditedRun, findings: &mut Findings) -> Result<()> {
    let text = std::fs::read_to_string(run.root.join(manifest::MATRIX));
    if text.ok().as_ref() != Some(&run.manifest.matrix.text) {
        findings.breach(format!("{} is not the matrix of the manifest", manifest::MATRIX));
    }
    match &run.plan {
        Err(error) => findings.breach(error.clone()),
        Ok(plan) if provenance::plan(plan) != run.manifest.plan => findings.breach(
            "the cells have other keys than those that were run: a method's version or a default has changed since; \
             check the run with the program that made it",
        ),
        Ok(plan) => configs(run, plan, findings),
    }
    Ok(())
}

/// The resolved configurations on record are those that the keys are hashes of. Runs of earlier builds have none.
fn configs(run: &AuditedRun, plan: &Plan, findings: &mut Findings) {
    for cell in plan.cells() {
        let file = plan.folder(&run.root, cell).join(cell_folder::CONFIG);
        if let Ok(text) = std::fs::read_to_string(&file)
            && key_of_text(&text) != plan.identity(cell).0
        {
            findings.breach(format!("{} is not the configuration of its cell", run.relative(&file)));
        }
    }
    let expected: Vec<Value> = plan.cells().map(|cell| plan.describe(cell)).collect();
    match storage::files::read_json::<Vec<Value>>(&run.root.join(manifest::PLAN)) {
        Ok(Some(stored)) if stored != expected => {
            findings.breach(format!("{} is not the plan that was run", manifest::PLAN));
        }
        Ok(_) => {}
        Err(error) => findings.breach(format!("{error:#}")),
    }
}

pub(super) fn complete(run: &AuditedRun, findings: &mut Findings) -> Result<()> {
    let plan = run.plan()?;
    for cell in plan.cells() {
        let slug = plan.identity(cell).1;
        match cell_folder::cell_state(plan, &run.root, cell) {
            State::Done => {}
            State::New => findings.breach(format!("{slug} was not started")),
            State::Begun => findings.breach(format!("{slug} is not finished")),
            State::Failed(failed) => findings.breach(format!("{slug} failed: {}", failed.error)),
            State::Damaged(reason) => findings.breach(format!("{slug}: {reason}")),
        }
    }
    Ok(())
}
