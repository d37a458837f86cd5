//! The tables of a run, combined from those of its cells.

use std::path::{Path, PathBuf};

use super::cell::{OUTCOMES_FILE, ROWS_FILE, TIMINGS_FILE};
use super::error::{Error, Result, damaged, unwritable};
use super::read::{read_frame, read_rows, read_timings};
use super::rows::order;
use super::write::{parquet_writer, write_csv, write_parquet, write_sealed};
use crate::atomic::{Force, force_folder, spend};
use crate::row::{Outcome, Row, Timing};
use crate::table::Table;

/// Whether [`combine`] also combines the outcomes per image, by far the largest table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PerExample {
    /// Write `per_example.parquet`.
    Combine,
    /// Do not even read them.
    Skip,
}

/// Combines the cells in `folders` into `results.parquet`, `results.csv`, `timings.parquet` and,
/// if asked for, `per_example.parquet` in the run's folder. Returns the rows.
///
/// Rows are ordered by data set, network, defense, recipe, seed, checkpoint, kind, source, its
/// checkpoint, attack, radius and cell; times by cell, kind and start; outcomes by the name of the
/// cell's folder, then by example. So the bytes depend on what the cells found, not on the order in
/// which they finished. A folder without one of the files adds nothing to that table.
pub fn combine(run: &Path, folders: &[PathBuf], per_example: PerExample) -> Result<Vec<Row>> {
    let mut folders: Vec<&PathBuf> = folders.iter().collect();
    folders.sort_by_key(|folder| (folder.file_name(), *folder));
    let mut rows = Vec::new();
    let mut timings = Vec::new();
    for folder in &folders {
        let (its_rows, its_timings) = (folder.join(ROWS_FILE), folder.join(TIMINGS_FILE));
        if its_rows.is_file() {
            rows.extend(read_rows(&its_rows)?);
        }
        if its_timings.is_file() {
            timings.extend(read_timings(&its_timings)?);
        }
    }
    rows.sort_by(order);
    timings.sort_by(|a: &Timing, b: &Timing| (&a.cell, a.kind, a.started).cmp(&(&b.cell, b.kind, b.started)));
    write_parquet(&run.join("results.parquet"), Force::Now, &rows)?;
    write_csv(&run.join("results.csv"), &rows)?;
    write_parquet(&run.join("timings.parquet"), Force::Now, &timings)?;
    if per_example == PerExample::Combine {
        combine_outcomes(&run.join("per_example.parquet"), &folders)?;
    }
    spend(|| force_folder(run)).map_err(|source| Error::Write {
        file: run.to_path_buf(),
        source,
    })?;
    Ok(rows)
}

/// One cell at a time, column by column, so that memory holds one cell's outcomes.
fn combine_outcomes(file: &Path, folders: &[&PathBuf]) -> Result<()> {
    let empty = Outcome::to_frame(&[]).map_err(|error| unwritable(file, error))?;
    let names: Vec<&str> = Outcome::columns().iter().map(|column| column.name).collect();
    write_sealed(file, Force::Now, |writer| {
        let mut parquet = parquet_writer(writer).batched(empty.schema())?;
        for folder in folders {
            let part = folder.join(OUTCOMES_FILE);
            if !part.is_file() {
                continue;
            }
            let frame = read_frame(&part)?
                .select(names.iter().copied())
                .map_err(|error| damaged(&part, error))?;
            if frame.schema() != empty.schema() {
                return Err(damaged(&part, "its columns have other types").into());
            }
            parquet.write_batch(&frame)?;
        }
        parquet.finish()?;
        Ok(())
    })
}
