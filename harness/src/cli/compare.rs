use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use storage::files;

use super::finished_args::CompareArgs;
use crate::exit::{Exit, Stop};
use crate::publish::compare::{self, Comparison, Shown};

/// Compares results with earlier ones. Every file is written before anything is printed.
pub(super) fn main(args: &CompareArgs, out: &mut dyn Write) -> Result<Exit> {
    let (run, records) = compare::read(&args.run)?;
    let baseline_file = args.baseline.display();
    if args.update && !args.baseline.exists() {
        compare::update(&args.baseline, &run, &records)?;
        writeln!(out, "{baseline_file} is a new baseline of {} cells", run.cells.len())?;
        return Ok(Exit::Success);
    }
    if !args.baseline.exists() {
        return Err(Stop::usage(format!(
            "there is no baseline {baseline_file}; --update makes this run the baseline"
        )));
    }
    let (baseline, _) = compare::read(&args.baseline)?;
    let rules = compare::rules(&args.tolerance, args.false_alarms, args.strict, &run, &baseline)?;
    let comparison = compare::compare(&run, &baseline, &rules);
    let failures = comparison.failures().len();
    if let Some(file) = &args.json {
        files::write_json(&absolute(file)?, &report(&comparison, failures))?;
    }
    if let Some(file) = &args.junit {
        files::write(&absolute(file)?, compare::junit(&comparison).as_bytes())?;
    }
    if args.update {
        compare::update(&args.baseline, &run, &records)?;
    }
    let shown = if args.all { Shown::All } else { Shown::Moved };
    let text = if args.markdown {
        compare::markdown(&comparison, shown)
    } else {
        compare::text(&comparison, shown)
    };
    writeln!(out, "{}", text.trim_end())?;
    if args.update {
        writeln!(out, "{baseline_file} is the baseline from now on")?;
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
    std::path::absolute(file).with_context(|| format!("`{}` is not a usable path", file.display()))
}
