//! One typed row per outcome, stored and queried with polars.
//!
//! An evaluation of one checkpoint by one attack is a [`Row`]; how long it took, and where, is a
//! [`Timing`]; the result for each image is an [`Outcome`]. Every column of the three tables is
//! declared once, in `row.rs`: the declaration is the struct, the schema, the Parquet file, the
//! CSV header and the documentation (`COLUMNS.md`).
//!
//! A finished cell leaves its tables in its own folder ([`write_cell`]): its one row and its times as JSON, what became
//! of each image as Parquet. Nothing is combined until
//! asked for: [`combine`] then writes the run's tables, whose bytes depend on the cells alone, not
//! on the order in which they finished. Nothing here prints, and nothing here knows a tensor.
//! Every file appears complete or not at all ([`atomic`]).

pub mod atomic;
pub mod seal;

mod bounds;
mod fill;
#[cfg(test)]
mod fixtures;
mod flags;
mod row;
mod significance;
mod statistics;
mod store;
mod student;
mod table;
mod words;
mod worst;

pub use flags::{Flag, RaisedFlag, flags, letters};
pub use row::{Outcome, Row, Timing};
pub use significance::{Comparison, compare};
pub use statistics::{Interval, holm, mcnemar, mean, median, sample_deviation, wilson};
pub use store::{
    Error, OUTCOMES_FILE, PerExample, ROWS_FILE, Result, TIMINGS_FILE, cell_folders, combine, parse_rows, parse_texts,
    read_outcomes, read_rows, read_texts, read_timings, reseal, write_cell, write_comparisons, write_flags,
};
pub use student::student_quantile;
pub use table::{ColumnInfo, Type, columns_markdown};
pub use words::{Checkpoint, Kind, Selection, Status, TimingKind, UnknownWord};
pub use worst::{UnknownAttack, is_called, worst_of};
