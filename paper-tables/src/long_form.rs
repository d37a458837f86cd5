//! The long form: a line for each defense, checkpoint and attack, the same in every format.

use crate::format::{percent, signed};
use crate::table::{Block, Cell, Entry, Table};

/// A line of the long form, as plain text.
pub(crate) struct LongLine {
    /// Defense and attack.
    pub(crate) names: Vec<String>,
    /// The mean, or why there is none.
    pub(crate) mean: String,
    /// Whether the mean is bold.
    pub(crate) bold: bool,
    /// Beside the mean.
    pub(crate) marks: Vec<char>,
    /// Everything else, as [`heads`] has it.
    pub(crate) numbers: Vec<String>,
}

/// The heads of all columns.
pub(crate) fn heads(table: &Table) -> Vec<&'static str> {
    let mut heads = vec!["defense", "attack", "mean", "sd", "95% interval", "seeds", "images"];
    if has_published(table) {
        heads.extend(["paper", "difference"]);
    }
    if !table.flags.is_empty() {
        heads.push("flags");
    }
    heads
}

/// The lines of a block.
pub(crate) fn lines(table: &Table, block: &Block) -> Vec<LongLine> {
    let published = has_published(table);
    let mut lines = Vec::new();
    for line in &block.lines {
        for (heading, entry) in table.columns.iter().zip(&line.entries) {
            let names = vec![table.name(line), heading.label.clone()];
            lines.push(long_line(table, names, entry, published));
        }
    }
    lines
}

fn has_published(table: &Table) -> bool {
    table.entries().any(|entry| entry.published.is_some())
}

fn long_line(table: &Table, names: Vec<String>, entry: &Entry, published: bool) -> LongLine {
    let measured = entry.cell.measurement();
    let number = |value: Option<f64>| value.map_or_else(String::new, percent);
    let seeds = match &entry.cell {
        Cell::Measured(measured) => measured.seeds.to_string(),
        Cell::Missing { planned: 0 } => String::new(),
        cell => format!("{}/{}", measured.map_or(0, |measured| measured.seeds), cell.planned()),
    };
    let mut numbers = vec![
        number(measured.and_then(|measured| measured.deviation)),
        measured.map_or_else(String::new, |measured| {
            format!("[{}, {}]", percent(measured.low), percent(measured.high))
        }),
        seeds,
        measured.map_or_else(String::new, |measured| measured.images.to_string()),
    ];
    if published {
        let paper = entry.published.as_ref();
        numbers.push(paper.map_or_else(String::new, |number| percent(number.value) + number.mark()));
        numbers.push(
            entry
                .difference()
                .map_or_else(String::new, |difference| signed(difference, "−")),
        );
    }
    if !table.flags.is_empty() {
        let flags: Vec<&str> = entry.flags.iter().map(|flag| flag.as_str()).collect();
        numbers.push(flags.join(" "));
    }
    LongLine {
        names,
        mean: match (&entry.cell, measured) {
            (_, Some(measured)) => percent(measured.mean),
            (Cell::Failed { .. }, None) => "failed".to_string(),
            _ => "—".to_string(),
        },
        bold: entry.highest && table.style.bold,
        // Flags have a column of their own.
        marks: table
            .marks(entry)
            .into_iter()
            .filter(|mark| !mark.is_ascii_alphabetic())
            .collect(),
        numbers,
    }
}
