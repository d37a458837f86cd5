//! Published numbers, and tables out of results.
//!
//! [`Evidence`] and a [`TableSpec`] make a [`Table`]: our accuracy in every cell, or why there is none,
//! beside the published number. An [`Exporter`] writes the table in one format. Nothing here runs
//! an attack, reads a file or prints.
//!
//! ```
//! use paper_tables::{Evidence, Exporter, Look, Markdown, Published, Table, TableKind, TableSpec};
//!
//! let spec = TableSpec {
//!     id: "white-box".into(),
//!     title: "White-box robustness".into(),
//!     kind: TableKind::WhiteBox,
//!     blocks: vec![],
//!     rows: vec![],
//!     columns: vec![],
//!     checkpoints: vec![],
//!     look: Look::default(),
//! };
//! let evidence = Evidence::new(&[], &[], &[], Published::embedded());
//! let table = Table::build(&spec, &evidence)?;
//! assert!(Markdown::default().export(&table).starts_with("## White-box robustness"));
//! # Ok::<(), paper_tables::Ambiguous>(())
//! ```

mod csv;
mod evidence;
mod figures;
mod latex;
mod long;
mod look;
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

pub use csv::Csv;
pub use evidence::Evidence;
pub use figures::{
    Attacked, Bar, Bars, Chart, Clean, Curve, Epoch, Figure, Gallery, HeatMap, History, Image, Pair, Pixels, Point,
    Weight, epsilon_charts, learning_charts, magnification, overfitting_bars, query_charts, transfer_maps,
    weight_charts,
};
pub use latex::Latex;
pub use look::{Form, Look, Style};
pub use markdown::Markdown;
pub use published::{Citation, Number, Published, Query, Tag};
pub use report::{CellLine, Doubt, Heat, Item, Picture, Record, Report, Shown, Value};
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
