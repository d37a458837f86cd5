//! A run as one page: HTML that needs no network, sorts its tables, and can be read on a phone, in the dark, by keyboard
//! and by a screen reader.

mod chart;
mod detail;
mod download;
mod headline;
mod heat_map;
mod lists;
mod page;
mod table;
#[cfg(test)]
mod tests;

pub use self::chart::ReportChart;
pub use self::detail::{CellFolder, ClassCount, Detail, DetailSeed, PageLink};
pub use self::download::Download;
pub use self::headline::{Headline, headlines};
pub use self::heat_map::ReportHeatMap;
pub use self::lists::{CellLine, Item, Record, ReportFlag, Settings, TrainingSettings, Value};
pub use self::page::Report;
pub use self::table::{At, ReportTable};
