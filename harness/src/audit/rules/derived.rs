//! What is derived from the cells, and which invocation made them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use storage::{cell_folder, manifest};

use crate::audit::run::{AuditedRun, Findings};
use crate::publish::{self, Changes};

pub(super) fn derived(run: &AuditedRun, findings: &mut Findings) -> Result<()> {
    let again = tempfile::tempdir().context("cannot make a temporary folder")?;
    publish::derive(&run.root, again.path(), &Changes::default())?;
    for path in manifest::walk(again.path())? {
        let (stored, fresh) = (run.root.join(&path), again.path().join(&path));
        let same_bytes = std::fs::read(&stored).ok() == std::fs::read(&fresh).ok();
        // Another version of the writer may encode the same values differently.
        let same = same_bytes
            || match path.as_str() {
                "results.parquet" => results::read_rows(&stored)? == results::read_rows(&fresh)?,
                "timings.parquet" => results::read_timings(&stored)? == results::read_timings(&fresh)?,
                "per_example.parquet" => results::read_outcomes(&stored)? == results::read_outcomes(&fresh)?,
                _ => false,
            };
        if !same {
            findings.outdated(run, format!("{path} does not follow from the cells"));
        }
    }
    Ok(())
}

pub(super) fn source(run: &AuditedRun, findings: &mut Findings) -> Result<()> {
    let invocations = &run.manifest.invocations;
    let known: BTreeSet<&str> = invocations.iter().map(|invocation| invocation.id.as_str()).collect();
    let plan = run.plan()?;
    for cell in plan.cells() {
        let folder = plan.folder(&run.root, cell);
        if let Ok(Some(status)) = cell_folder::status(&folder)
            && !known.contains(status.made_by.as_str())
            && !run.open.contains(&status.made_by)
        {
            findings.breach(format!(
                "{} was made by {}, of which there is no record",
                run.relative(&folder),
                status.made_by
            ));
        }
    }
    let mut commits: BTreeMap<String, bool> = BTreeMap::new();
    for invocation in invocations {
        let commit = invocation
            .program
            .commit
            .clone()
            .unwrap_or_else(|| "an unknown commit".into());
        *commits.entry(commit).or_default() |= invocation.program.dirty == Some(true);
    }
    for (commit, dirty) in commits {
        let changed = if dirty { ", with changes that are not in it" } else { "" };
        findings.notes.push(format!("made by the program of {commit}{changed}"));
    }
    Ok(())
}
