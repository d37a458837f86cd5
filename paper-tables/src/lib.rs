//! Published numbers, and tables out of results.
//!
//! Rows and a [`TableSpec`] make a [`Table`]: our accuracy in every cell, or why there is none,
//! beside the published number. An [`Exporter`] writes the table in one format. Nothing here runs
//! an attack, reads a file or prints.
//!
//! ```
//! use paper_tables::{Exporter, Markdown, Published, Table, TableKind, TableSpec};
//!
//! let spec = TableSpec {
//!     id: "white-box".into(),
//!     title: "White-box robustness".into(),
//!     kind: TableKind::WhiteBox,
//!     blocks: vec![],
//!     rows: vec![],
//!     columns: vec![],
//!     checkpoints: vec![],
//! };
//! let table = Table::build(&spec, &[], &[], Published::embedded())?;
//! assert!(Markdown::default().export(&table).starts_with("## White-box robustness"));
//! # Ok::<(), paper_tables::Ambiguous>(())
//! ```

mod charts;
mod csv;
mod latex;
mod markdown;
mod notes;
mod published;
mod report;
#[cfg(test)]
mod samples;
mod shown;
mod significance;
mod spec;
mod table;

pub use charts::{Chart, Curve, epsilon_charts, query_charts};
pub use csv::Csv;
pub use latex::Latex;
pub use markdown::Markdown;
pub use published::{Citation, Number, Published, Query, Tag};
pub use report::{
    Attacked, CellLine, Clean, Doubt, Gallery, Heat, Image, Item, Pair, Picture, Record, Report, Shown, Value,
    magnification,
};
pub use significance::significance;
pub use spec::{BlockSpec, ColumnSpec, Planned, RowSpec, TableKind, TableSpec};
pub use table::{Ambiguous, Block, Cell, Comparison, Entry, Heading, Line, Measurement, Spread, Table};

/// Writes a table in one format.
pub trait Exporter {
    /// The usual extension of a file in this format.
    fn extension(&self) -> &'static str;

    /// The table as text, with a line break at the end.
    fn export(&self, table: &Table) -> String;
}
