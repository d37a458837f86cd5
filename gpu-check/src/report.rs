//! The results of all checks, as a table and as JSON.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Tensor};
use kernels::device::Gpu;
use serde_json::{Value, json};

/// One line of the table.
struct Row {
    group: &'static str,
    name: String,
    seconds: f64,
    outcome: Outcome,
}

enum Outcome {
    /// A deviation and the largest one allowed.
    Deviation(f64, f64),
    /// A figure without a limit, and its unit.
    Figure(f64, &'static str),
    Failed(String),
    Skipped(String),
}

/// What a check returns.
pub(crate) enum Found {
    /// The deviation, and the largest allowed one. NaN fails.
    Deviation { is: f64, allowed: f64 },
    /// A figure with its unit.
    Figure(f64, &'static str),
    /// Why there is nothing to find.
    Nothing(String),
}

/// All lines so far.
pub(crate) struct Report {
    only: String,
    until: Instant,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(only: String, until: Instant) -> Self {
        Self {
            only,
            until,
            rows: Vec::new(),
        }
    }

    /// Runs one check, unless it is not selected or time is up. A panic of the check counts as a failure.
    pub(crate) fn add(&mut self, group: &'static str, name: impl Into<String>, check: impl FnOnce() -> Result<Found>) {
        let name = name.into();
        if !format!("{group} {name}").contains(&self.only) {
            return;
        }
        let start = Instant::now();
        let outcome = if start > self.until {
            Outcome::Skipped("out of time".into())
        } else {
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)) {
                Ok(Ok(Found::Deviation { is, allowed })) => Outcome::Deviation(is, allowed),
                Ok(Ok(Found::Figure(value, unit))) => Outcome::Figure(value, unit),
                Ok(Ok(Found::Nothing(why))) => Outcome::Skipped(why),
                Ok(Err(error)) => Outcome::Failed(first_line(&format!("{error:#}"))),
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
                    Outcome::Failed(first_line(&text.unwrap_or_default()))
                }
            }
        };
        let row = Row {
            group,
            name,
            seconds: start.elapsed().as_secs_f64(),
            outcome,
        };
        eprintln!("{}", row.line());
        self.rows.push(row);
    }

    /// Whether nothing failed.
    pub(crate) fn passed(&self) -> bool {
        !self.rows.iter().any(Row::failed)
    }

    pub(crate) fn print(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        for row in &self.rows {
            writeln!(out, "{}", row.line())?;
        }
        let failed = self.rows.iter().filter(|row| row.failed()).count();
        let skipped = self
            .rows
            .iter()
            .filter(|row| matches!(row.outcome, Outcome::Skipped(_)));
        writeln!(
            out,
            "{} checks, {failed} failed, {} skipped",
            self.rows.len(),
            skipped.count()
        )?;
        Ok(())
    }

    pub(crate) fn write(&self, file: &Path, card: Option<&Gpu>) -> Result<()> {
        let card = card.map(|card| {
            json!({
                "name": card.name, "capability": card.capability, "memory": card.memory, "driver": card.driver,
                "cudnn": card.cudnn,
            })
        });
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let text = serde_json::to_string_pretty(&json!({"card": card, "passed": self.passed(), "rows": rows}))?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Row {
    fn failed(&self) -> bool {
        match &self.outcome {
            Outcome::Deviation(is, allowed) => is.is_nan() || is > allowed,
            Outcome::Failed(_) => true,
            Outcome::Figure(..) | Outcome::Skipped(_) => false,
        }
    }

    fn line(&self) -> String {
        let said = match &self.outcome {
            Outcome::Deviation(is, allowed) => format!("{is:.2e} of {allowed:.0e} allowed"),
            Outcome::Figure(value, unit) => format!("{value:.1} {unit}"),
            Outcome::Failed(why) => why.clone(),
            Outcome::Skipped(why) => format!("skipped: {why}"),
        };
        let verdict = match (&self.outcome, self.failed()) {
            (_, true) => "FAILED",
            (Outcome::Deviation(..), _) => "ok",
            _ => "",
        };
        format!(
            "{:<11} {:<58} {verdict:<6} {said} ({:.1} s)",
            self.group, self.name, self.seconds
        )
    }

    fn json(&self) -> Value {
        let mut row = json!({"group": self.group, "name": self.name, "seconds": self.seconds, "failed": self.failed()});
        match &self.outcome {
            Outcome::Deviation(is, allowed) => {
                row["deviation"] = json!(is);
                row["allowed"] = json!(allowed);
            }
            Outcome::Figure(value, unit) => {
                row["value"] = json!(value);
                row["unit"] = json!(unit);
            }
            Outcome::Failed(why) => row["error"] = json!(why),
            Outcome::Skipped(why) => row["skipped"] = json!(why),
        }
        row
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_string()
}

/// The numbers of a tensor on any device.
pub(crate) fn doubles(tensor: &Tensor) -> Result<Vec<f64>> {
    let tensor = tensor.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F64)?;
    Ok(tensor.flatten_all()?.to_vec1()?)
}

/// The largest difference, over the largest expected number. NaN if there is one on one side only.
pub(crate) fn deviation(actual: &Tensor, expected: &Tensor) -> Result<f64> {
    anyhow::ensure!(
        actual.dims() == expected.dims(),
        "{:?} instead of {:?}",
        actual.dims(),
        expected.dims()
    );
    let (actual, expected) = (doubles(actual)?, doubles(expected)?);
    let largest = expected
        .iter()
        .fold(1e-30f64, |largest, value| largest.max(value.abs()));
    let differences = actual.iter().zip(&expected).map(|(a, e)| (a - e).abs() / largest);
    // `f64::max` would lose a NaN.
    Ok(differences.fold(
        0.0,
        |worst, difference| if difference <= worst { worst } else { difference },
    ))
}

/// ‖a − b‖ / ‖b‖: one flipped ReLU or sign does not decide it.
pub(crate) fn distance(actual: &Tensor, expected: &Tensor) -> Result<f64> {
    let (actual, expected) = (doubles(actual)?, doubles(expected)?);
    anyhow::ensure!(
        actual.len() == expected.len(),
        "{} instead of {} numbers",
        actual.len(),
        expected.len()
    );
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let difference = square(&mut actual.iter().zip(&expected).map(|(a, e)| a - e));
    Ok((difference / square(&mut expected.iter().copied()).max(1e-300)).sqrt())
}

/// Whether two tensors are the same bits: 0, or the share of numbers that differ.
pub(crate) fn differing(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (doubles(a)?, doubles(b)?);
    anyhow::ensure!(a.len() == b.len(), "{} instead of {} numbers", a.len(), b.len());
    let differ = a.iter().zip(&b).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    Ok(differ as f64 / a.len().max(1) as f64)
}
