use std::io::Write;

use anyhow::Result;

use crate::cli::{Format, TablesArgs};
use crate::exit::Exit;
use crate::tables;

/// Typesets the tables of a run again, out of its stored results.
pub(crate) fn main(args: &TablesArgs, out: &mut dyn Write) -> Result<Exit> {
    let markdown = tables::write(&args.run)?;
    let text = match args.format {
        Format::Markdown => markdown,
        Format::Csv => tables::read(&args.run, "csv")?,
        Format::Latex => tables::read(&args.run, "tex")?,
    };
    writeln!(out, "{}", text.trim_end())?;
    Ok(Exit::Success)
}
