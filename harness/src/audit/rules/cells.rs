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
            // An invocation that has no end yet may have begun to write it again.
            Ok(_) if is_rewritten(path) => {
                findings.outdated(run, format!("{path} has changed since it was written"));
            }
            Ok(_) => findings.breach(format!("{path} has changed since it was written")),
            Err(_) if !file.exists() => findings.breach(format!("{path} is missing")),
            Err(error) => findings.breach(format!("{path}: {error:#}")),
        }
    }
    for path in there.iter().filter(|path| *path != manifest::FILE) {
        if !run.manifest.files.contains_key(path) {
            let text = format!("{path} is no file of this run");
            if is_of_open(run, path) {
                findings.unfinished(format!(
                    "{path} was written after the manifest, by an invocation without an end"
                ));
            } else if is_rewritten(path) {
                findings.outdated(run, text);
            } else {
                findings.breach(text);
            }
        }
        // The manifest copies what a cell records, so the record itself must be checked.
        if let Some(cell) = path
            .strip_suffix(cell_folder::STATUS)
            .filter(|folder| folder.starts_with("cells/"))
        {
            match cell_folder::status(&run.root.join(cell)) {
                Err(error) => findings.breach(format!("{path}: {error:#}")),
                Ok(status) => {
                    let status = status.filter(|status| !run.open.contains(&status.made_by));
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

/// Whether every invocation writes this file.
fn is_rewritten(path: &str) -> bool {
    manifest::is_derived(path) || path == manifest::MATRIX || path == manifest::PLAN
}

/// Whether an invocation that has no end wrote this file: its own record, or a file of a finished cell, as recorded.
fn is_of_open(run: &AuditedRun, path: &str) -> bool {
    if let Some(record) = path.strip_prefix(&format!("{}/", manifest::INVOCATIONS)) {
        return record.strip_suffix(".json").is_some_and(|id| run.open.contains(id));
    }
    let Some((cell, name)) = path.strip_prefix("cells/").and_then(|path| path.split_once('/')) else {
        return false;
    };
    let folder = run.root.join("cells").join(cell);
    let Ok(Some(status)) = cell_folder::status(&folder) else {
        return false;
    };
    let recorded = || match status.files.get(name) {
        Some(mark) => FileMark::of(&folder.join(name)).is_ok_and(|now| now == *mark),
        None => name == cell_folder::STATUS,
    };
    run.open.contains(&status.made_by) && recorded()
}

pub(super) fn plan(run: &AuditedRun, findings: &mut Findings) -> Result<()> {
    let text = std::fs::read_to_string(run.root.join(manifest::MATRIX));
    let is_other_matrix = text.ok().as_ref() != Some(&run.manifest.matrix.text);
    if is_other_matrix {
        findings.outdated(run, format!("{} is not the matrix of the manifest", manifest::MATRIX));
    }
    match &run.plan {
        Err(error) => findings.breach(error.clone()),
        // The manifest will follow when the invocation with this matrix ends.
        Ok(_) if is_other_matrix && !run.open.is_empty() => {}
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
            findings.outdated(run, format!("{} is not the plan that was run", manifest::PLAN));
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
            State::New => findings.unfinished(format!("{slug} was not started")),
            State::Begun => findings.unfinished(format!("{slug} is not finished")),
            State::Failed(failed) if failed.integrity => findings.breach(format!("{slug} failed: {}", failed.error)),
            State::Failed(failed) => findings.unfinished(format!("{slug} failed: {}", failed.error)),
            State::Damaged(reason) => findings.breach(format!("{slug}: {reason}")),
        }
    }
    Ok(())
}
