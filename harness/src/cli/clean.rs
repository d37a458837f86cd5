use std::collections::HashSet;
use std::io::Write;

use anyhow::Result;
use indicatif::HumanBytes;
use plan::CellName;
use storage::clean::{remove, unneeded};
use storage::leases::{self, Process, ProcessInfo};

use super::finished_args::CleanArgs;
use crate::exit::{Exit, Stop};
use crate::table_specs;

/// Lists the cells of a run that its plan does not need; with `--yes` removes them.
pub(super) fn main(args: &CleanArgs, out: &mut dyn Write) -> Result<Exit> {
    let (cells, _) = table_specs::cells(&args.run)?;
    let needed: HashSet<&CellName> = cells.iter().collect();
    let found = unneeded(&args.run, &needed)?;
    if found.is_empty() {
        writeln!(
            out,
            "nothing to remove: the plan of {} needs every cell",
            args.run.display()
        )?;
        return Ok(Exit::Success);
    }
    for unneeded in &found {
        writeln!(
            out,
            "{:>10}  {}",
            HumanBytes(unneeded.bytes).to_string(),
            unneeded.folder.display()
        )?;
    }
    let bytes = HumanBytes(found.iter().map(|unneeded| unneeded.bytes).sum());
    let cells = if found.len() == 1 {
        "1 cell"
    } else {
        &format!("{} cells", found.len())
    };
    if !args.yes {
        writeln!(
            out,
            "{cells} that the plan does not need, {bytes}; to remove: rampart clean {} --yes",
            args.run.display()
        )?;
        return Ok(Exit::Success);
    }
    let process = Process::join(&args.run, ProcessInfo::this(None, true, leases::STALE_AFTER))?;
    if let Some(other) = process.others()?.first() {
        return Err(Stop::usage(format!(
            "{other} works in {}; nothing was removed, try again when it has ended",
            args.run.display()
        )));
    }
    remove(&args.run, &process, &found)?;
    writeln!(out, "removed {cells}, {bytes}")?;
    Ok(Exit::Success)
}
