//! The list of every evaluation that a matrix asks for.

use std::collections::HashMap;

use paper_tables::{CellLine, Planned, Value};
use plan::CellName;
use results::{Row, Status, Timing};

use super::details::Panels;
use super::warnings::Warnings;
use crate::publish::run::FinishedRun;

/// The columns.
pub(super) const HEADS: [&str; 15] = [
    "defense",
    "attack",
    "accuracy %",
    "95 % interval",
    "flags",
    "data",
    "network",
    "seed",
    "checkpoint",
    "kind",
    "made on",
    "images",
    "passes / image",
    "largest change",
    "seconds",
];

/// Every evaluation: with its numbers, failed with the reason, or missing.
pub(super) fn list(
    run: &FinishedRun,
    rows: &[Row],
    timings: &[Timing],
    warnings: &Warnings,
    panels: &Panels<'_>,
) -> Vec<CellLine> {
    let seconds: HashMap<&str, f64> = timings
        .iter()
        .map(|timing| (timing.cell.as_str(), timing.seconds))
        .collect();
    let by_key: HashMap<&str, &Row> = rows
        .iter()
        .filter_map(|row| Some((row.cell.get(..CellName::KEY_DIGITS)?, row)))
        .collect();
    let marks = warnings.by_cell();
    let line = |(planned, cell): (&Planned, &CellName)| {
        let panel = panels.of(planned).unwrap_or_default();
        let Some(row) = by_key.get(cell.key_digits()) else {
            return missing(planned, panel);
        };
        let marks = marks.get(row.cell.as_str()).cloned().unwrap_or_default();
        CellLine {
            panel,
            ..there(row, seconds.get(row.cell.as_str()).copied(), marks)
        }
    };
    run.planned().map(line).collect()
}

fn missing(planned: &Planned, panel: String) -> CellLine {
    let mut values = vec![
        Value::text(planned.defense.as_str()),
        Value::words(planned.attack.as_str()),
        Value {
            text: "missing".into(),
            key: String::new(),
            class: "missing".into(),
        },
        Value::number(None, |_| String::new()),
        flags(&[]),
        Value::words(planned.dataset.as_str()),
        Value::words(planned.network.as_str()),
        Value::integer(Some(planned.seed)),
        Value::words(planned.checkpoint.to_string()),
        Value::words(planned.kind.to_string()),
        Value::words(planned.source.clone().unwrap_or_default()),
    ];
    values.resize(HEADS.len(), Value::number(None, |_| String::new()));
    CellLine {
        state: "missing",
        values,
        marks: Vec::new(),
        panel,
    }
}

fn there(row: &Row, seconds: Option<f64>, marks: Vec<String>) -> CellLine {
    let percent = |value: Option<f64>| value.map(|share| 100.0 * share);
    let two = |value: f64| format!("{value:.2}");
    let failed = row.status == Status::Failed;
    let accuracy = if failed {
        Value {
            text: format!("failed: {}", row.error.as_deref().unwrap_or_default()),
            key: String::new(),
            class: "failed text".into(),
        }
    } else {
        Value::number(percent(row.accuracy), two)
    };
    let interval = match (percent(row.accuracy_low), percent(row.accuracy_high)) {
        (Some(low), Some(high)) => format!("{low:.1} to {high:.1}"),
        _ => "—".into(),
    };
    let per_image = |passes: Option<u64>| Some(passes? as f64 / row.n.filter(|n| *n > 0)? as f64);
    let passes = per_image(row.forwards).zip(per_image(row.backwards));
    let shown = |(forward, backward): (f64, f64)| format!("{forward:.1} + {backward:.1}");
    let values = vec![
        Value::text(row.defense.as_str()),
        Value::words(row.attack.as_str()),
        accuracy,
        Value {
            key: row.accuracy_low.map_or_else(String::new, |low| low.to_string()),
            ..Value::text(interval)
        },
        flags(&marks),
        Value::words(row.dataset.as_str()),
        Value::words(row.network.as_str()),
        Value::integer(Some(row.seed)),
        Value::words(row.checkpoint.to_string()),
        Value::words(row.kind.to_string()),
        Value::words(row.source.clone().unwrap_or_default()),
        Value::integer(row.n),
        Value {
            key: passes.map_or_else(String::new, |(forward, backward)| (forward + backward).to_string()),
            ..Value::text(passes.map_or_else(|| "—".to_string(), shown))
        },
        Value::number(row.max_delta, |change| format!("{change:.4}")),
        Value::number(seconds, two),
    ];
    CellLine {
        state: if failed { "failed" } else { "done" },
        values,
        marks,
        panel: String::new(),
    }
}

/// Sorted by how many there are; the page itself shows the marks.
fn flags(marks: &[String]) -> Value {
    Value {
        text: String::new(),
        key: marks.len().to_string(),
        class: "marks".into(),
    }
}
