use std::io::Write;

use anyhow::{Context, Result};
use storage::{files, manifest};

use super::finished_args::ReportArgs;
use crate::exit::Exit;
use crate::publish::report;

const FILE: &str = "report.html";

/// Writes a run as one HTML page.
pub(super) fn main(args: &ReportArgs, out: &mut dyn Write) -> Result<Exit> {
    let page = report(&args.run, args.out.is_none())?;
    let html = page.html().context("cannot fill the page")?;
    let file = args.out.clone().unwrap_or_else(|| args.run.join(FILE));
    files::write(&std::path::absolute(&file)?, html.as_bytes())?;
    if args.out.is_none() {
        manifest::refresh(&args.run, manifest::is_derived)?;
    }
    writeln!(out, "{}", file.display())?;
    Ok(Exit::Success)
}
