use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use plan::nearest;

use crate::compare::{self, Comparison, Count, Rules, Shown, Stored};
use crate::exit::{Exit, Stop};
use crate::files;

/// Two sets of results, and how far they may differ.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// The folder of a run, such as `runs/ci`, or a stored results file (Parquet or CSV).
    pub(crate) run: PathBuf,
    /// What it is compared with: the same.
    pub(crate) baseline: PathBuf,
    /// How far accuracies may move, in points: everywhere (`1.5`), or under one attack (`PGD-20=1`). May be
    /// repeated. Unless given: as far as chance moves them, judged by the seeds of the baseline.
    #[arg(long, value_name = "[ATTACK=]POINTS")]
    pub(crate) tolerance: Vec<String>,
    /// How often, at most, chance may flag a comparison without `--tolerance` in which nothing has changed.
    #[arg(long, value_name = "P", default_value_t = 0.01)]
    pub(crate) false_alarms: f64,
    /// Fail as well on improvements and on cells that the baseline lacks.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Show every line, not only those that moved.
    #[arg(long)]
    pub(crate) all: bool,
    /// Print Markdown, for the summary of a job.
    #[arg(long)]
    pub(crate) markdown: bool,
    /// Write the comparison as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the comparison as JUnit's XML, for CI services.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Make the run the baseline from now on: show what moved, then write BASELINE, a CSV file.
    #[arg(long)]
    pub(crate) update: bool,
}

/// Compares results with earlier ones.
pub(crate) fn main(args: &CompareArgs, out: &mut dyn Write) -> Result<Exit> {
    let (run, records) = compare::read(&args.run)?;
    if args.update && !args.baseline.exists() {
        update(args, &run, &records)?;
        writeln!(
            out,
            "{} is a new baseline of {} cells",
            args.baseline.display(),
            run.cells.len()
        )?;
        return Ok(Exit::Success);
    }
    if !args.baseline.exists() {
        return Err(Stop::usage(format!(
            "there is no baseline {}; --update makes the run one",
            args.baseline.display()
        )));
    }
    let (baseline, _) = compare::read(&args.baseline)?;
    let rules = rules(args, &run, &baseline)?;
    let comparison = compare::compare(&run, &baseline, &rules);
    let shown = if args.all { Shown::All } else { Shown::Moved };
    let text = match args.markdown {
        true => compare::markdown(&comparison, shown),
        false => compare::text(&comparison, shown),
    };
    writeln!(out, "{}", text.trim_end())?;
    let failures = comparison.failures().len();
    if let Some(file) = &args.json {
        files::write_json(&absolute(file)?, &report(&comparison, failures))?;
    }
    if let Some(file) = &args.junit {
        files::write(&absolute(file)?, compare::junit(&comparison).as_bytes())?;
    }
    if args.update {
        update(args, &run, &records)?;
        writeln!(out, "{} is the baseline from now on", args.baseline.display())?;
        return Ok(Exit::Success);
    }
    Ok(if failures > 0 { Exit::Regression } else { Exit::Success })
}

#[derive(serde::Serialize)]
struct Report<'a> {
    passed: bool,
    failures: usize,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

fn report(comparison: &Comparison, failures: usize) -> Report<'_> {
    Report {
        passed: failures == 0,
        failures,
        comparison,
    }
}

fn absolute(file: &Path) -> Result<PathBuf> {
    std::path::absolute(file).with_context(|| format!("there is no place {}", file.display()))
}

fn rules(args: &CompareArgs, run: &Stored, baseline: &Stored) -> Result<Rules> {
    let mut rules = Rules {
        points: None,
        by_attack: BTreeMap::new(),
        false_alarms: args.false_alarms,
        strict: args.strict,
    };
    if !(args.false_alarms > 0.0 && args.false_alarms < 1.0) {
        return Err(Stop::usage(format!(
            "--false-alarms {}: a probability lies between 0 and 1",
            args.false_alarms
        )));
    }
    let names = run.cells.keys().chain(baseline.cells.keys());
    let attacks: BTreeSet<String> = names.map(|name| name.attack.to_lowercase()).collect();
    for tolerance in &args.tolerance {
        let (attack, points) = match tolerance.rsplit_once('=') {
            Some((attack, points)) => (Some(attack.trim().to_lowercase()), points),
            None => (None, tolerance.as_str()),
        };
        let points: f64 = points
            .trim()
            .parse()
            .ok()
            .filter(|points: &f64| points.is_finite() && *points >= 0.0)
            .ok_or_else(|| {
                Stop::usage(format!(
                    "--tolerance {tolerance}: `{points}` is no number of points, such as 1.5"
                ))
            })?;
        match attack {
            None => rules.points = Some(points),
            Some(attack) if attacks.contains(&attack) => {
                rules.by_attack.insert(attack, points);
            }
            Some(attack) => {
                let hint = nearest(&attack, attacks.iter().map(String::as_str));
                let hint = hint.map_or_else(
                    || format!("there are {}", attacks.iter().cloned().collect::<Vec<_>>().join(", ")),
                    |it| format!("did you mean `{it}`?"),
                );
                return Err(Stop::usage(format!(
                    "--tolerance {tolerance}: no cell has an attack `{attack}`; {hint}"
                )));
            }
        }
    }
    Ok(rules)
}

/// Writes the run's results where the baseline lies.
fn update(args: &CompareArgs, run: &Stored, records: &[BTreeMap<String, String>]) -> Result<()> {
    if args.baseline.extension().is_none_or(|it| it != "csv") {
        return Err(Stop::usage(format!(
            "--update writes a text file that can be reviewed; call the baseline {} something that ends in `.csv`",
            args.baseline.display()
        )));
    }
    let failed = run.cells.iter().find_map(|(name, seeds)| {
        let failed = seeds.values().any(|count| matches!(count, Count::Failed(_)));
        failed.then_some(name)
    });
    if let Some(name) = failed {
        return Err(Stop {
            exit: Exit::CellsFailed,
            message: format!("{name} has failed, and a baseline without it would never miss it; run it again first"),
        }
        .into());
    }
    files::write(&absolute(&args.baseline)?, compare::baseline(records).as_bytes())
}
