//! How every network was trained, for a paper's appendix: a table of the settings that differ, and a note of those that do not.

mod columns;
mod export;
mod table;
mod words;

pub use self::table::{Recipes, TrainedConfig};
pub use self::words::settings;
