use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use plan::CELLS;
use plan::tables::StyleChanges;
use storage::leases::{self, Process, ProcessInfo};
use storage::manifest;

use super::finished_args::{Format, Switch, TablesArgs};
use crate::exit::{Exit, Stop};
use crate::publish::{Changes, derive as derive_tables, read_tables, write_tables};

/// Typesets the tables of a run again, out of its stored results: into its own folder, or with options elsewhere.
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
    let temporary;
    let (folder, markdown) = match &args.out {
        Some(folder) => {
            if is_same_folder(folder, &args.run) {
                let message = "--out: this is the folder of the run itself, which holds the tables of its matrix";
                return Err(Stop::usage(message));
            }
            (folder.as_path(), derive_tables(&args.run, folder, &changes)?)
        }
        // Options hold for this call: what the run's folder holds is what its matrix asks for.
        None if changes != Changes::default() => {
            temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
            (temporary.path(), derive_tables(&args.run, temporary.path(), &changes)?)
        }
        None => (args.run.as_path(), write_again(&args.run)?),
    };
    let text = match args.format {
        Format::Markdown => markdown,
        Format::Csv => read_tables(&args.run, folder, "csv")?,
        Format::Latex => read_tables(&args.run, folder, "tex")?,
    };
    writeln!(out, "{}", text.trim_end())?;
    Ok(Exit::Success)
}

/// Writes the tables of a run to its own folder.
fn write_again(root: &Path) -> Result<String> {
    if !root.join(CELLS).is_dir() {
        return write_tables(root);
    }
    let unwritable = || format!("to typeset it elsewhere: rampart tables {} --out DIR", root.display());
    // One process at a time, so that none overwrites tables that show more than its own.
    let reader = Process::join(root, ProcessInfo::this(None, false, leases::STALE_AFTER)).with_context(unwritable)?;
    let turn = reader.wait_for_tables(&|| false)?;
    let markdown = write_tables(root)?;
    manifest::refresh(root, manifest::is_derived)?;
    if let Some(turn) = turn {
        turn.abandon();
    }
    Ok(markdown)
}

fn is_same_folder(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// `pgd-20,cw` as a list.
fn names(list: &str) -> Vec<String> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_string).collect()
}
