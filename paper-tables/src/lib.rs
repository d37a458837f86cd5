//! Published numbers, and tables of results.
//!
//! [`ResultIndex`] and a [`TableSpec`] make a [`Table`]: our accuracy in every cell, or why there is none,
//! beside the published number. An [`Exporter`] writes the table in one format. Nothing here runs
//! an attack, reads a file or prints.
//!
//! ```
//! use paper_tables::{ResultIndex, Exporter, TableStyle, Markdown, Published, Table, TableKind, TableSpec};
//!
//! let spec = TableSpec {
//!     id: "white-box".into(),
//!     title: "White-box robustness".into(),
//!     kind: TableKind::WhiteBox,
//!     blocks: vec![],
//!     rows: vec![],
//!     columns: vec![],
//!     checkpoints: vec![],
//!     style: TableStyle::default(),
//! };
//! let index = ResultIndex::new(&[], &[], &[], Published::embedded());
//! let table = Table::build(&spec, &index)?;
//! assert!(Markdown::default().export(&table).starts_with("## White-box robustness"));
//! # Ok::<(), paper_tables::Ambiguous>(())
//! ```

mod csv;
mod exporter;
mod figures;
#[cfg(test)]
mod fixtures;
mod format;
mod latex;
mod long_form;
mod markdown;
mod protocol;
mod published;
mod recipes;
mod records;
mod report;
mod significance;
mod spec;
mod style;
mod table;

pub use self::csv::Csv;
pub use exporter::Exporter;
pub use figures::{
    AttackedImage, AttackedImages, Bar, Bars, Chart, CleanImage, Curve, Epoch, ExampleImages, Figure, HeatMap, History,
    Image, Pixels, Point, Weight, epsilon_charts, learning_charts, magnification, overfitting_bars, query_charts,
    transfer_maps, weight_charts,
};
pub use latex::Latex;
pub use markdown::Markdown;
pub use protocol::{Difference, Protocol};
pub use published::{Citation, Number, Published, Query, Tag};
pub use recipes::{Recipes, TrainedConfig, settings};
pub use report::{
    At, CellFolder, CellLine, ClassCount, Detail, DetailSeed, Download, Headline, Item, PageLink, Record, Report,
    ReportChart, ReportFlag, ReportHeatMap, ReportTable, Settings, TrainingSettings, Value, headlines,
};
pub use significance::significance;
pub use spec::{BlockSpec, ColumnSpec, Planned, RowSpec, TableKind, TableSpec};
pub use style::{Form, PublishedRule, SpreadStyle, TableStyle};
pub use table::{
    Ambiguous, Block, Cell, Entry, Heading, Line, Measurement, PublishedNumber, ResultIndex, Spread, Table,
};
