//! The tables of one cell, in its folder.
//!
//! A cell has at most one row, and one of times: sealed JSON, since polars estimates for every column of a Parquet file
//! how many of its values are distinct, which for one row takes longer than everything else. Outcomes are Parquet.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::rows::order;
use super::write::{write_json, write_parquet};
use crate::atomic::Force;
use crate::row::{Outcome, Row, Timing};

/// A cell's rows, in its folder.
pub const ROWS_FILE: &str = "rows.json";
/// A cell's outcomes per image, in its folder.
pub const OUTCOMES_FILE: &str = "outcomes.parquet";
/// A cell's times, in its folder.
pub const TIMINGS_FILE: &str = "timings.json";

/// Stores what a cell found in its folder: [`OUTCOMES_FILE`], [`TIMINGS_FILE`] and, last,
/// [`ROWS_FILE`], so that a cell with rows has everything.
///
/// Each file appears completely or not at all; none is forced to disk. An empty table is a file without rows.
pub fn write_cell(folder: &Path, rows: &[Row], outcomes: &[Outcome], timings: &[Timing]) -> Result<()> {
    let mut rows = rows.to_vec();
    rows.sort_by(order);
    let mut outcomes = outcomes.to_vec();
    outcomes.sort_by(|a, b| (&a.cell, a.example).cmp(&(&b.cell, b.example)));
    write_parquet(&folder.join(OUTCOMES_FILE), Force::Later, &outcomes)?;
    write_json(&folder.join(TIMINGS_FILE), timings)?;
    write_json(&folder.join(ROWS_FILE), &rows)
}

/// The folders of a run that hold a cell's rows, `<run>/cells/*`, by name.
pub fn cell_folders(run: &Path) -> Result<Vec<PathBuf>> {
    let cells = run.join("cells");
    let unreadable = |source| Error::Read {
        file: cells.clone(),
        source,
    };
    let mut folders = Vec::new();
    for entry in fs::read_dir(&cells).map_err(unreadable)? {
        let folder = entry.map_err(unreadable)?.path();
        if folder.join(ROWS_FILE).is_file() {
            folders.push(folder);
        }
    }
    folders.sort();
    Ok(folders)
}
