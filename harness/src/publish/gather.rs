//! Gathers the finished cells of a run and typesets them, one process at a time.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use plan::Cell;
use plan::Plan;
use plan::matrix::Matrix;
use plan::tables::RunTables;
use serde_json::Value;
use storage::RunFolder;
use storage::cell_folder::{self, State};
use storage::files;
use storage::leases::{self, Lease};
use storage::manifest;

use super::tables::write;
use crate::progress::Progress;
use crate::table_specs;

/// Removes the temporary files of killed processes from a run's folder.
pub(crate) fn tidy_folders(root: &Path) -> Result<()> {
    for folder in ["", table_specs::FOLDER, manifest::INVOCATIONS] {
        files::remove_temporary(&root.join(folder))?;
    }
    Ok(())
}

/// Writes the matrix, every cell with its resolved configuration, and what the tables show to the run's folder.
pub(crate) fn begin(root: &Path, matrix: &Matrix, plan: &Plan, tables: &RunTables) -> Result<()> {
    files::write(&root.join(manifest::MATRIX), matrix.source.text.as_bytes())?;
    let cells: Vec<Value> = plan.cells().map(|cell| plan.describe(cell)).collect();
    files::write_json(&root.join(manifest::PLAN), &cells)?;
    table_specs::write(root, tables)
}

/// Waits until no other process typesets this run, so that the last one has seen every cell. `None`: interrupted.
pub(crate) fn wait_for_turn(run_folder: &RunFolder, progress: &Progress) -> Result<Option<Lease>> {
    run_folder.process().wait_for_tables(&|| progress.interrupted())
}

/// Stores and typesets every finished cell. Returns the tables in Markdown.
pub(crate) fn typeset(plan: &Plan, run_folder: &RunFolder) -> Result<String> {
    tidy(plan, run_folder)?;
    write(run_folder.root()).context("the cells are stored, but the tables could not be written")
}

/// Removes what killed processes left behind of cells that have since been finished.
fn tidy(plan: &Plan, run_folder: &RunFolder) -> Result<()> {
    if run_folder.process().others()?.is_empty() {
        let known: HashMap<&str, Cell> = plan.cells().map(|cell| (plan.identity(cell).0, cell)).collect();
        let done = |key: &str| {
            let cell = known.get(key);
            cell.is_some_and(|cell| cell_folder::cell_state(plan, run_folder.root(), *cell) == State::Done)
        };
        leases::tidy(run_folder.process(), &done)?;
    }
    Ok(())
}
