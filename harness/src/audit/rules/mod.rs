//! The rules that a run must keep.

mod cells;
mod data;
mod derived;
mod rows;
mod selection;
mod teachers;

use anyhow::Result;

use self::cells::{complete, files, plan};
use self::data::data;
use self::derived::{derived, source};
use self::rows::{rows, threat};
use self::selection::selection;
use self::teachers::teachers;
use super::run::{AuditedRun, Findings};

/// A rule: its name, what it requires, and the function that finds violations.
pub(super) type Rule = (&'static str, &'static str, fn(&AuditedRun, &mut Findings) -> Result<()>);

/// All rules but the first, which says that the manifest is unmodified. They depend on it.
pub(super) const RULES: [Rule; 10] = [
    (
        "files",
        "every file is as it was written, none is missing, none is foreign",
        files,
    ),
    ("plan", "matrix, options and data give the plan that was run", plan),
    ("complete", "every cell the matrix asks for is finished", complete),
    (
        "rows",
        "each row belongs to its cell, and its counts are those of the cell's images",
        rows,
    ),
    (
        "threat",
        "no perturbation is larger than the threat model allows",
        threat,
    ),
    (
        "selection",
        "checkpoints are those that their rule chooses, and rows record on which images",
        selection,
    ),
    (
        "teachers",
        "the predictions of each teacher are on record, from the checkpoint that the matrix names",
        teachers,
    ),
    (
        "data",
        "every row names the data that were read, and whether they are the published ones",
        data,
    ),
    ("derived", "results and tables follow from the cells", derived),
    ("source", "every cell was made by an invocation on record", source),
];
