//! Comma-separated values: long and tidy, one line per place of the table, for programs.

use crate::Exporter;
use crate::table::{Entry, Spread, Table};

const HEADER: &str = "table,block,row,column,checkpoint,mean,sd,low,high,seeds,planned,n,published,difference,source,status,data,reason,\
     flags,forwards_per_image,backwards_per_image";

/// One line per cell. Accuracies are in percent to four decimals; a field without a value is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Csv;

impl Exporter for Csv {
    fn extension(&self) -> &'static str {
        "csv"
    }

    fn export(&self, table: &Table) -> String {
        let mut text = format!("{HEADER}\n");
        for block in &table.blocks {
            let place = format!("{}/{}", block.dataset, block.network);
            let data = if block.verified { "verified" } else { "unverified data" };
            for line in &block.lines {
                for (heading, entry) in table.columns.iter().zip(&line.entries) {
                    let mut fields = vec![
                        table.id.clone(),
                        place.clone(),
                        line.defense.clone(),
                        heading.label.clone(),
                        line.checkpoint.to_string(),
                    ];
                    fields.extend(numbers(entry));
                    fields.push(entry.cell.status().to_string());
                    fields.push(data.to_string());
                    fields.push(entry.cell.reason().unwrap_or_default().to_string());
                    let flags: Vec<&str> = entry.flags.iter().map(|it| it.as_str()).collect();
                    fields.push(flags.join(" "));
                    let measured = entry.cell.measurement();
                    fields.push(number(measured.and_then(|it| it.forwards)));
                    fields.push(number(measured.and_then(|it| it.backwards)));
                    let quoted: Vec<String> = fields.iter().map(|field| quote(field)).collect();
                    text += &quoted.join(",");
                    text.push('\n');
                }
            }
        }
        text
    }
}

/// From `mean` to `source`.
fn numbers(entry: &Entry) -> [String; 10] {
    let count = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
    let measured = entry.cell.measurement();
    let (deviation, low, high) = match measured.map(|it| it.spread) {
        Some(Spread::Deviation(deviation)) => (Some(deviation), None, None),
        Some(Spread::Interval { low, high }) => (None, Some(low), Some(high)),
        None => (None, None, None),
    };
    let published = entry.published.as_ref();
    [
        number(measured.map(|it| it.mean)),
        number(deviation),
        number(low),
        number(high),
        measured.map_or(0, |it| it.seeds).to_string(),
        entry.cell.planned().to_string(),
        count(measured.map(|it| it.images)),
        published.map_or(String::new(), |it| it.value.to_string()),
        number(entry.difference()),
        published.map_or(String::new(), |it| it.citation.clone()),
    ]
}

fn number(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("{value:.4}"))
}

pub(crate) fn quote(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn every_kind_of_cell() {
        insta::assert_snapshot!(Csv.export(&samples::white_box()));
    }

    #[test]
    fn best_and_last() {
        insta::assert_snapshot!(Csv.export(&samples::wide()));
    }

    #[test]
    fn every_line_has_every_field() {
        let awkward = "a,\"b\"\nc";
        assert_eq!(quote(awkward), "\"a,\"\"b\"\"\nc\"");
        assert_eq!(
            numbers(&samples::white_box().blocks[0].lines[0].entries[0]).len() + 11,
            HEADER.split(',').count()
        );
    }
}
