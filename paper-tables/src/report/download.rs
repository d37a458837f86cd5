//! Files inside the page, which need no network to be saved.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::csv::Csv;
use crate::exporter::Exporter;
use crate::figures::Figure;
use crate::latex::Latex;
use crate::table::Table;

/// A file that the page holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Download {
    /// What readers call the format.
    label: &'static str,
    /// The name under which it is saved.
    file: String,
    /// A `data:` address. Trusted: base64 escapes whatever the text holds.
    address: String,
}

impl Download {
    /// A file of this name. The label is its format: `CSV`, `LaTeX`, `SVG`.
    pub fn new(label: &'static str, file: String, text: &str) -> Self {
        let kind = match label {
            "CSV" => "text/csv",
            "SVG" => "image/svg+xml",
            _ => "text/plain",
        };
        Self {
            label,
            file,
            address: format!("data:{kind};charset=utf-8;base64,{}", STANDARD.encode(text)),
        }
    }

    /// A table, under the names of the files in the run's folder.
    pub(super) fn of_table(table: &Table) -> Vec<Self> {
        let id = &table.id;
        vec![
            Self::new("CSV", format!("{id}.csv"), &Csv.export(table)),
            Self::new("LaTeX", format!("input-{id}.tex"), &Latex::Fragment.export(table)),
        ]
    }

    /// A figure, likewise.
    pub(super) fn of_figure(figure: &dyn Figure) -> Vec<Self> {
        let id = figure.id();
        vec![
            Self::new("SVG", format!("{id}.svg"), &figure.svg()),
            Self::new("CSV", format!("{id}.csv"), &figure.csv()),
            Self::new("LaTeX", format!("{id}.tex"), &figure.tex()),
        ]
    }
}
