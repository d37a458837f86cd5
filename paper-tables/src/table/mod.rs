//! A table before it has a format: every cell's number, or why there is none.

mod build;
mod comparison;
mod index;
mod marks;
mod notes;
#[cfg(test)]
mod tests;
mod types;

pub use self::index::ResultIndex;
pub use self::types::{Ambiguous, Block, Cell, Entry, Heading, Line, Measurement, PublishedNumber, Spread, Table};
pub(crate) use self::types::{DIFFERENT, TIED};
