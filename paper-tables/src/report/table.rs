//! A table of the page: numbers with flags, published numbers, and what they are sorted by.

use results::Flag;
use serde::Serialize;

use super::download::Download;
use crate::format::{percent, signed};
use crate::table::{Cell, DIFFERENT, Entry, Line, Spread, TIED, Table};

/// A table of the page.
#[derive(Debug, Clone, Serialize)]
pub struct ReportTable {
    id: String,
    title: String,
    columns: Vec<String>,
    blocks: Vec<ReportBlock>,
    notes: Vec<String>,
    downloads: Vec<Download>,
}

#[derive(Debug, Clone, Serialize)]
struct ReportBlock {
    heading: String,
    lines: Vec<ReportLine>,
}

#[derive(Debug, Clone, Serialize)]
struct ReportLine {
    name: String,
    order: usize,
    cells: Vec<ReportCell>,
}

#[derive(Debug, Clone, Serialize)]
struct ReportCell {
    text: String,
    /// What the column is sorted by; empty if the cell has no number.
    value: String,
    class: &'static str,
    spread: String,
    why: String,
    flags: Vec<Mark>,
    published: String,
    difference: String,
    /// The cell's id in the page.
    id: String,
    /// The id of its panel, if it has one.
    panel: String,
}

/// Where an entry is in a table: its block, its line and its column, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The block.
    pub block: usize,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A flag beside a number; the flag's explanation links to its id.
#[derive(Debug, Clone, Serialize)]
struct Mark {
    mark: String,
    id: String,
}

/// A link to a place in a table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Place {
    href: String,
    text: String,
}

impl ReportTable {
    /// A table; `mark` says how the page marks a flag, `panel` which panel tells more of an entry.
    pub fn new(table: &Table, mark: impl Fn(Flag) -> String, panel: impl Fn(At) -> Option<String>) -> Self {
        let cell = |at: At, entry: &Entry| ReportCell {
            panel: panel(at).unwrap_or_default(),
            ..report_cell(
                entry,
                &mark,
                &format!("{}-{}-{}-{}", table.id, at.block, at.line, at.column),
            )
        };
        let line = |block: usize, order: usize, line: &Line| ReportLine {
            name: match table.checkpoints.len() {
                0 | 1 => line.defense.clone(),
                _ => format!("{}, {}", line.defense, line.checkpoint),
            },
            order,
            cells: line
                .entries
                .iter()
                .enumerate()
                .map(|(column, entry)| {
                    let line = order;
                    cell(At { block, line, column }, entry)
                })
                .collect(),
        };
        Self {
            id: table.id.clone(),
            title: table.title.clone(),
            columns: table.columns.iter().map(|column| column.label.clone()).collect(),
            blocks: table
                .blocks
                .iter()
                .enumerate()
                .map(|(at, block)| ReportBlock {
                    heading: block.heading(),
                    lines: block
                        .lines
                        .iter()
                        .enumerate()
                        .map(|(order, one)| line(at, order, one))
                        .collect(),
                })
                .collect(),
            // The page explains flags in a section of their own.
            notes: table
                .notes
                .iter()
                .filter(|note| !table.flags.iter().any(|flag| note.contains(flag.explanation())))
                .cloned()
                .collect(),
            downloads: Download::of_table(table),
        }
    }

    /// The id of the first entry that leads to a panel.
    pub(super) fn leads_to(&self, panel: &str) -> Option<&str> {
        let lines = self.blocks.iter().flat_map(|block| &block.lines);
        let mut cells = lines.flat_map(|line| &line.cells);
        cells.find(|cell| cell.panel == panel).map(|cell| cell.id.as_str())
    }

    /// The places that carry a flag, each with the flag's mark.
    pub(super) fn marked(&self) -> impl Iterator<Item = (&str, Place)> {
        let lines = self.blocks.iter().flat_map(|block| &block.lines);
        let cells = lines.flat_map(|line| {
            line.cells
                .iter()
                .zip(&self.columns)
                .map(move |(cell, column)| (line, cell, column))
        });
        cells.flat_map(|(line, cell, column)| {
            cell.flags.iter().map(move |flag| {
                let place = Place {
                    href: format!("#{}", flag.id),
                    text: format!("{}, {column}", line.name),
                };
                (flag.mark.as_str(), place)
            })
        })
    }
}

fn report_cell(entry: &Entry, mark: &impl Fn(Flag) -> String, place: &str) -> ReportCell {
    let measured = entry.cell.measurement();
    let text = match (&entry.cell, measured) {
        (_, Some(measured)) => percent(measured.mean),
        (Cell::Failed { .. }, None) => "failed".to_string(),
        _ => "—".to_string(),
    };
    let spread = measured.map_or_else(String::new, |measured| match measured.spread {
        Spread::Deviation(deviation) => format!("± {}", percent(deviation)),
        Spread::Interval { low, high } => format!("[{low:.1}, {high:.1}]"),
    });
    let incomplete = match &entry.cell {
        Cell::Partial { planned, .. } => format!(
            " ({} of {planned} seeds)",
            measured.map_or(0, |measured| measured.seeds)
        ),
        _ => String::new(),
    };
    // Flags have marks of their own on the page.
    let significance: String = [
        (entry.tied == Some(true), TIED),
        (entry.different == Some(true), DIFFERENT),
    ]
    .iter()
    .filter_map(|(there, mark)| there.then_some(*mark))
    .collect();
    ReportCell {
        text,
        value: measured.map_or_else(String::new, |measured| measured.mean.to_string()),
        class: match &entry.cell {
            Cell::Failed { .. } => "failed",
            Cell::Missing { .. } => "missing",
            _ if entry.highest => "best",
            _ => "",
        },
        spread: spread + &incomplete + &significance,
        why: entry.cell.reason().unwrap_or_default().to_string(),
        flags: entry
            .flags
            .iter()
            .map(|flag| mark(*flag))
            .map(|mark| Mark {
                id: format!("mark-{place}-{mark}"),
                mark,
            })
            .collect(),
        published: entry
            .published
            .as_ref()
            .map_or_else(String::new, |number| percent(number.value) + number.mark()),
        id: format!("at-{place}"),
        panel: String::new(),
        difference: entry
            .difference()
            .map_or_else(String::new, |difference| signed(difference, "−")),
    }
}
