use std::io::Write;

use anyhow::Result;

use super::args::StatusArgs;
use crate::exit::Exit;
use crate::schedule::{RunProgress, run_folder};

/// Shows the progress of a run, read from its folder alone: reads no data and checks no file.
pub(super) fn main(args: &StatusArgs, out: &mut dyn Write) -> Result<Exit> {
    let root = run_folder(&args.run, &args.out)?;
    let status = RunProgress::open(&root)?.read()?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&status.as_json(&root))?)?;
    } else {
        status.print(&root, out)?;
    }
    Ok(Exit::Success)
}
