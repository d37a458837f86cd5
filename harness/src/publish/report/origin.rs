//! Where a run comes from, out of its manifest.

use std::path::Path;

use anyhow::Result;
use paper_tables::{Item, Record};
use results::{Row, Timing};
use serde_json::Value;
use storage::manifest::{self, Manifest};

use crate::units::duration;

/// Items, and lists that say more.
pub(super) struct Origin {
    pub(super) items: Vec<Item>,
    pub(super) records: Vec<Record>,
}

impl Origin {
    /// Adds the different ones of these values under one name.
    fn add(&mut self, label: &str, values: impl IntoIterator<Item = String>) {
        let mut values: Vec<String> = values.into_iter().filter(|value| !value.is_empty()).collect();
        values.sort();
        values.dedup();
        if !values.is_empty() {
            self.items.push(Item::new(label, values.join("; ")));
        }
    }

    fn list(&mut self, title: &str, heads: &[&str], lines: Vec<Vec<String>>) {
        if !lines.is_empty() {
            self.records.push(Record {
                title: title.to_string(),
                heads: heads.iter().map(|head| (*head).to_string()).collect(),
                lines,
            });
        }
    }
}

/// Where a run comes from. Without a manifest, as much as rows and timings know.
pub(super) fn of(root: &Path, rows: &[Row], timings: &[Timing]) -> Result<Origin> {
    let mut origin = Origin {
        items: Vec::new(),
        records: Vec::new(),
    };
    match Manifest::read(root)? {
        Some(manifest) => of_manifest(&serde_json::to_value(&manifest)?, &mut origin),
        None => {
            let missing = format!("there is no {}: this run has not ended yet", manifest::FILE);
            origin.add("manifest", [missing]);
            origin.add(
                "program",
                rows.iter().map(|row| format!("Rampart {}", row.code_version)),
            );
            origin.add("processor", timings.iter().map(|timing| timing.cpu.clone()));
            origin.add("device", timings.iter().map(|timing| timing.device.clone()));
            origin.add("host", timings.iter().map(|timing| timing.host.clone()));
        }
    }
    origin.add(
        "checkpoints",
        rows.iter().map(|row| format!("best by {}", row.selection)),
    );
    let digest = manifest::digest(&std::fs::read(root.join("results.parquet"))?);
    origin.add("results.parquet", [format!("BLAKE3 {digest}")]);
    data(rows, &mut origin);
    Ok(origin)
}

fn of_manifest(manifest: &Value, origin: &mut Origin) {
    let invocations = manifest["invocations"].as_array().cloned().unwrap_or_default();
    let program = |show: &dyn Fn(&Value) -> String| {
        invocations
            .iter()
            .map(|invocation| show(&invocation["program"]))
            .collect::<Vec<_>>()
    };
    origin.add(
        "program",
        program(&|program| format!("Rampart {}", text(&program["version"]))),
    );
    origin.add("commit", program(&commit));
    origin.add("features", program(&|program| list(&program["features"], "none")));
    origin.add("compiler", program(&compiler));
    origin.add(
        "Cargo.lock",
        program(&|program| format!("BLAKE3 {}", text(&program["cargo_lock"]))),
    );
    let plan = &manifest["plan"];
    let cells = format!("{} trainings, {} evaluations", plan["trainings"], plan["evaluations"]);
    origin.add("cells", [cells]);
    origin.add("seeds", [list(&plan["seeds"], "")]);
    let matrix = &manifest["matrix"];
    let mut laid_over: Vec<String> = Vec::new();
    laid_over.extend(
        matrix["set"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|value| format!("--set {}", text(value))),
    );
    for option in ["limit", "seed"] {
        if !matrix[option].is_null() {
            laid_over.push(format!("--{option} {}", matrix[option]));
        }
    }
    origin.add("laid over the matrix", [laid_over.join(" ")]);
    origin.add("matrix.yaml", [format!("BLAKE3 {}", text(&matrix["blake3"]))]);
    origin.add("keys of all cells", [format!("BLAKE3 {}", text(&plan["blake3"]))]);
    let machine = |name: &str| {
        invocations
            .iter()
            .map(|invocation| text(&invocation["machine"][name]))
            .collect::<Vec<_>>()
    };
    origin.add("processor", machine("processor"));
    origin.add("device", machine("device"));
    origin.list(
        "Invocations",
        &[
            "started",
            "host",
            "device",
            "threads",
            "jobs",
            "cells ended",
            "time",
            "exit code",
            "arguments",
        ],
        invocations.iter().map(invocation).collect(),
    );
}

fn commit(program: &Value) -> String {
    let changed = match program["dirty"].as_bool() {
        Some(true) => ", with changes that are not in it",
        _ => "",
    };
    match program["commit"].as_str() {
        Some(commit) => format!("{commit}{changed}"),
        None => "unknown".into(),
    }
}

fn compiler(program: &Value) -> String {
    let parts = [
        text(&program["compiler"]),
        text(&program["target"]),
        format!("profile {}", text(&program["profile"])),
        format!("opt-level {}", text(&program["opt_level"])),
        text(&program["flags"]),
    ];
    let known: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    known.join(", ")
}

fn invocation(it: &Value) -> Vec<String> {
    let end = |name: &str| match &it["end"][name] {
        Value::Null => "—".to_string(),
        value => text(value),
    };
    let time = it["end"]["seconds"]
        .as_f64()
        .map_or_else(|| "no end".to_string(), duration);
    vec![
        utc(it["started"].as_u64().unwrap_or(0)),
        text(&it["machine"]["host"]),
        text(&it["machine"]["device"]),
        text(&it["settings"]["threads"]),
        text(&it["settings"]["jobs"]),
        end("cells_ended"),
        time,
        end("exit"),
        list(&it["arguments"], "").replace(", ", " "),
    ]
}

/// The data that were read, as rows name them.
fn data(rows: &[Row], origin: &mut Origin) {
    let mut lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let verified = if row.verified {
                "the published ones"
            } else {
                "not verified"
            };
            vec![row.dataset.clone(), verified.to_string(), row.dataset_digest.clone()]
        })
        .collect();
    lines.sort();
    lines.dedup();
    origin.list("Data", &["data set", "checksums", "digest of what was read"], lines);
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(values: &Value, none: &str) -> String {
    let texts: Vec<String> = values.as_array().into_iter().flatten().map(text).collect();
    if texts.is_empty() {
        none.to_string()
    } else {
        texts.join(", ")
    }
}

/// Seconds since 1970 as a date and time of day.
fn utc(seconds: u64) -> String {
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (day, month) = (days + 1, month + 1);
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02} UTC",
        of_day / 3600,
        of_day / 60 % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34 UTC");
        assert_eq!(utc(1_735_689_599), "2024-12-31 23:59 UTC");
    }
}
