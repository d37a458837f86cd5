//! How a run ended: its exit code, and the lines that say so.

use std::io::Write;
use std::path::Path;

use anyhow::Result;

use super::options::Report;
use crate::exit::Exit;

/// The exit code of a run.
pub(crate) fn exit_of(report: &Report) -> Exit {
    match report {
        Report { interrupted: true, .. } => Exit::Interrupted,
        Report { failed, .. } if failed.iter().any(|(_, failed)| failed.integrity) => Exit::Integrity,
        Report { failed, left, .. } if !failed.is_empty() || !left.is_empty() => Exit::CellsFailed,
        _ => Exit::Success,
    }
}

/// Counts of cells, what failed and why, and where the results are.
pub(crate) fn print_report(report: &Report, root: &Path, out: &mut dyn Write) -> Result<()> {
    let root = root.display();
    let Report {
        computed,
        kept,
        elsewhere,
        left,
        failed,
        interrupted,
        ..
    } = report;
    let elsewhere = match elsewhere {
        0 => String::new(),
        cells => format!(", {cells} by other processes"),
    };
    writeln!(
        out,
        "{computed} cells computed{elsewhere}, {kept} kept from before, {} failed",
        failed.len()
    )?;
    if let Some(first) = left.first() {
        let more = match left.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        writeln!(out, "left to compute: {first}{more}")?;
    }
    for (slug, failed) in failed {
        writeln!(out, "failed: {slug}: {}", failed.error)?;
    }
    if failed.iter().any(|(_, failed)| failed.repeatable) {
        writeln!(
            out,
            "a diverged training is not tried again; change its recipe, or use --force"
        )?;
    }
    writeln!(
        out,
        "results: {root}/results.parquet, {root}/results.csv; tables: {root}/tables"
    )?;
    if *interrupted {
        writeln!(out, "interrupted; run the same command again to continue")?;
    }
    Ok(())
}
