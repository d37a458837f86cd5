//! Comma-separated values for programs: one line per number, unless the wide form is asked for.

use crate::exporter::Exporter;
use crate::records::Records;
use crate::style::{Form, SpreadStyle};
use crate::table::{Block, Entry, Heading, Line, Table};

const HEADER: &str = "table,block,row,column,checkpoint,mean,sd,low,high,seeds,planned,n,published,difference,source,status,data,reason,\
     flags,forwards_per_image,backwards_per_image,threat,selection,highest,tied,different,\
     protocol";

/// Accuracies are in percent to four decimals; a field without a value is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Csv;

impl Exporter for Csv {
    fn extension(&self) -> &'static str {
        "csv"
    }

    fn export(&self, table: &Table) -> String {
        let lines = table
            .blocks
            .iter()
            .flat_map(|block| block.lines.iter().map(move |line| (block, line)));
        match table.style.form {
            Some(Form::Wide) => {
                let mut records = Records::new(wide_header(table));
                lines.for_each(|(block, line)| records.add(wide(table, block, line)));
                records.finish()
            }
            None | Some(Form::Long) => {
                let mut records = Records::new(HEADER.split(','));
                for (block, line) in lines {
                    for (heading, entry) in table.columns.iter().zip(&line.entries) {
                        records.add(long(table, block, line, heading, entry));
                    }
                }
                records.finish()
            }
        }
    }
}

fn long(table: &Table, block: &Block, line: &Line, heading: &Heading, entry: &Entry) -> Vec<String> {
    let mut fields = vec![
        table.id.clone(),
        place(block),
        line.defense.clone(),
        heading.label.clone(),
        line.checkpoint.to_string(),
    ];
    fields.extend(numbers(entry));
    fields.push(entry.cell.status().to_string());
    fields.push(data(block).to_string());
    fields.push(entry.cell.reason().unwrap_or_default().to_string());
    let flags: Vec<&str> = entry.flags.iter().map(|flag| flag.as_str()).collect();
    fields.push(flags.join(" "));
    let measured = entry.cell.measurement();
    fields.push(number(measured.and_then(|measured| measured.forwards)));
    fields.push(number(measured.and_then(|measured| measured.backwards)));
    fields.push(entry.threat.clone().unwrap_or_default());
    fields.push(entry.selection.map_or(String::new(), |selection| selection.to_string()));
    fields.push(entry.highest.to_string());
    fields.push(entry.tied.map_or(String::new(), |tied| tied.to_string()));
    fields.push(entry.different.map_or(String::new(), |different| different.to_string()));
    fields.push(protocol(entry));
    fields
}

/// In what the row's protocol differs from that of the published number beside it; `same` if in nothing.
fn protocol(entry: &Entry) -> String {
    match &entry.published {
        None => String::new(),
        Some(number) if number.differences.is_empty() => "same".to_string(),
        Some(number) => {
            let texts: Vec<&str> = number
                .differences
                .iter()
                .map(|difference| difference.text.as_str())
                .collect();
            texts.join("; ")
        }
    }
}

/// From `mean` to `source`.
fn numbers(entry: &Entry) -> [String; 10] {
    let count = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
    let measured = entry.cell.measurement();
    let published = entry.published.as_ref();
    [
        number(measured.map(|measured| measured.mean)),
        number(measured.and_then(|measured| measured.deviation)),
        number(measured.map(|measured| measured.low)),
        number(measured.map(|measured| measured.high)),
        measured.map_or(0, |measured| measured.seeds).to_string(),
        entry.cell.planned().to_string(),
        count(measured.map(|measured| measured.images)),
        published.map_or(String::new(), |number| number.value.to_string()),
        number(entry.difference()),
        published.map_or(String::new(), |number| number.citation.clone()),
    ]
}

/// What follows a column's name, by style.
const fn beside(style: SpreadStyle) -> &'static [&'static str] {
    match style {
        SpreadStyle::MeanSd => &[" sd"],
        SpreadStyle::Interval => &[" low", " high"],
        SpreadStyle::Plain => &[],
    }
}

fn wide_header(table: &Table) -> Vec<String> {
    let mut fields = ["table", "block", "data", "row", "checkpoint"]
        .map(String::from)
        .to_vec();
    for column in &table.columns {
        fields.push(column.label.clone());
        fields.extend(
            beside(table.style.spread)
                .iter()
                .map(|what| column.label.clone() + what),
        );
    }
    fields
}

/// A failed number says so; one that was not run is empty.
fn wide(table: &Table, block: &Block, line: &Line) -> Vec<String> {
    let mut fields = vec![
        table.id.clone(),
        place(block),
        data(block).to_string(),
        line.defense.clone(),
        line.checkpoint.to_string(),
    ];
    for entry in &line.entries {
        let measured = entry.cell.measurement();
        fields.push(match entry.cell.status() {
            "failed" => "failed".to_string(),
            _ => number(measured.map(|measured| measured.mean)),
        });
        match table.style.spread {
            SpreadStyle::MeanSd => fields.push(number(measured.and_then(|measured| measured.deviation))),
            SpreadStyle::Interval => {
                fields.push(number(measured.map(|measured| measured.low)));
                fields.push(number(measured.map(|measured| measured.high)));
            }
            SpreadStyle::Plain => {}
        }
    }
    fields
}

fn place(block: &Block) -> String {
    format!("{}/{}", block.dataset, block.network)
}

const fn data(block: &Block) -> &'static str {
    if block.verified { "verified" } else { "unverified data" }
}

fn number(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("{value:.4}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn every_kind_of_cell() {
        insta::assert_snapshot!(Csv.export(&fixtures::white_box()));
    }

    #[test]
    fn best_and_last() {
        insta::assert_snapshot!(Csv.export(&fixtures::wide()));
    }

    #[test]
    fn wide_form() {
        let mut table = fixtures::white_box();
        table.style.form = Some(Form::Wide);
        insta::assert_snapshot!(Csv.export(&table));
    }

    #[test]
    fn every_line_has_every_field() {
        for mut table in fixtures::all() {
            // Without the quoted reasons of failures, a comma is the end of a field.
            let fields = |table: &Table| -> Vec<usize> {
                let text = Csv.export(table);
                let quoted = text.split('"').enumerate().filter(|(at, _)| at % 2 == 0);
                let plain: String = quoted.map(|(_, part)| part).collect();
                plain.lines().map(|line| line.split(',').count()).collect()
            };
            assert!(fields(&table).iter().all(|count| *count == HEADER.split(',').count()));
            for style in [SpreadStyle::MeanSd, SpreadStyle::Interval, SpreadStyle::Plain] {
                (table.style.form, table.style.spread) = (Some(Form::Wide), style);
                let wanted = 5 + table.columns.len() * (1 + beside(style).len());
                assert!(fields(&table).iter().all(|count| *count == wanted));
            }
        }
    }
}
