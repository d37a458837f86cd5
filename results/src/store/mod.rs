//! Tables on disk: one file per table and cell, and the run's tables combined from them.

mod cell;
mod combine;
mod error;
mod read;
mod rows;
#[cfg(test)]
mod tests;
mod write;

pub use self::cell::{OUTCOMES_FILE, ROWS_FILE, TIMINGS_FILE, cell_folders, write_cell};
pub use self::combine::{PerExample, combine};
pub use self::error::{Error, Result};
pub use self::read::{parse_rows, parse_texts, read_outcomes, read_rows, read_texts, read_timings, reseal};
pub use self::write::{write_comparisons, write_flags};
