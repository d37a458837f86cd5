//! What the folder of a run shows of the processes that work in it, and what dead ones left there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anyhow::Result;
use plan::CellName;

use super::info::{PROCESSES, ProcessInfo, remove_stale_progress};
use super::listing::{names, remove, remove_folder};
use super::process::Process;
use super::record::{Holder, LEASES, last_holders, lease_file, numbers, remove_unnamed};
use super::token::Token;

/// The leases of a run that a living process may hold, by key, without joining the run: on this host those of living
/// processes, on other hosts those of all processes that have not left.
///
/// # Errors
/// If the run's folder cannot be read.
pub fn watch(root: &Path) -> Result<BTreeMap<String, Holder>> {
    let mut lives: HashMap<Token, bool> = HashMap::new();
    let mut holders = last_holders(root)?;
    holders.retain(|_, holder| {
        *lives.entry(holder.by.clone()).or_insert_with(|| {
            let info = ProcessInfo::read(root, &holder.by);
            info.is_some_and(|info| !info.is_dead_here(root, &holder.by))
        })
    });
    Ok(holders)
}

/// The cells that a process has begun and not finished.
///
/// # Errors
/// If the run's folder cannot be read.
pub fn begun(root: &Path) -> Result<HashSet<CellName>> {
    let names = names(&root.join("cells"))?;
    let begun = names.iter().filter_map(|name| name.split_once('.')?.0.parse().ok());
    Ok(begun.collect())
}

/// Removes what dead processes left: the leases and folders of cells that have ended, and files that never had a name.
/// To be called while no other process works in the run.
///
/// # Errors
/// If the run's folder cannot be read.
pub fn tidy(process: &Process, ended: &dyn Fn(&str) -> bool) -> Result<()> {
    let root = &process.shared.root;
    for (key, holder) in last_holders(root)? {
        if ended(&key) {
            for number in numbers(root, &key)? {
                remove(&lease_file(root, &key, number));
            }
            remove_folder(&holder.work.folder(root));
        }
    }
    remove_stale_progress(root)?;
    for folder in [PROCESSES, LEASES] {
        remove_unnamed(&root.join(folder))?;
    }
    Ok(())
}
