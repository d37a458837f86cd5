use std::io::Write;

use anyhow::Result;
use plan::tables::StyleChanges;
use storage::leases::{self, Process, ProcessInfo};
use storage::manifest;

use super::args::{Format, Switch, TablesArgs};
use crate::exit::{Exit, Stop};
use crate::publish::{Changes, read_tables, write_tables};

/// Typesets the tables of a run again, out of its stored results.
pub(super) fn main(args: &TablesArgs, out: &mut dyn Write) -> Result<Exit> {
    let worst_of: Vec<Vec<String>> = args.worst_of.iter().map(|list| names(list)).collect();
    if worst_of.iter().any(Vec::is_empty) {
        return Err(Stop::usage(
            "--worst-of needs the names of attacks, as in `--worst-of pgd-20,cw`",
        ));
    }
    let changes = Changes {
        worst_of,
        style: StyleChanges {
            style: args.style,
            form: args.form,
            bold: args.bold.map(|bold| bold == Switch::On),
            against: args.against.clone(),
            published: args.published,
        },
    };
    let markdown = if args.run.join("cells").is_dir() {
        // One process at a time, so that none overwrites tables that show more than its own.
        let reader = Process::join(&args.run, ProcessInfo::this(None, false, leases::STALE_AFTER))?;
        let turn = reader.wait_for_tables(&|| false)?;
        let markdown = write_tables(&args.run, &changes)?;
        manifest::refresh(&args.run, manifest::is_derived)?;
        if let Some(turn) = turn {
            turn.abandon();
        }
        markdown
    } else {
        write_tables(&args.run, &changes)?
    };
    let text = match args.format {
        Format::Markdown => markdown,
        Format::Csv => read_tables(&args.run, "csv")?,
        Format::Latex => read_tables(&args.run, "tex")?,
    };
    writeln!(out, "{}", text.trim_end())?;
    Ok(Exit::Success)
}

/// `pgd-20,cw` as a list.
fn names(list: &str) -> Vec<String> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_string).collect()
}
