//! Finds the cells in a run's folder that its plan does not need, and removes them.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plan::{CELLS, CellName};

use crate::cell_folder;
use crate::leases::{self, Process, WorkName};
use crate::manifest;

/// The folder of a cell, or of an attempt at one, that a plan does not need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unneeded {
    /// Its cell.
    pub cell: CellName,
    /// Where it is.
    pub folder: PathBuf,
    /// The sum of its files' sizes.
    pub bytes: u64,
}

/// The folders of cells that are not among `needed`, finished or not, by name. Links and folders that are not of cells
/// are left out.
///
/// # Errors
/// If a folder cannot be read.
pub fn unneeded(root: &Path, needed: &HashSet<&CellName>) -> Result<Vec<Unneeded>> {
    let cells = root.join(CELLS);
    let unreadable = || format!("cannot read the folder {}", cells.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(&cells).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let name = entry.file_name();
        let Some(cell) = name.to_str().and_then(cell_of) else {
            continue;
        };
        if needed.contains(&cell) || !entry.file_type().with_context(unreadable)?.is_dir() {
            continue;
        }
        let folder = entry.path();
        let bytes = bytes(&folder)?;
        found.push(Unneeded { cell, folder, bytes });
    }
    found.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(found)
}

/// The cell that a folder of this name belongs to.
fn cell_of(name: &str) -> Option<CellName> {
    let of_attempt = || name.parse::<WorkName>().ok()?.cell().cloned();
    name.parse().ok().or_else(of_attempt)
}

fn bytes(folder: &Path) -> Result<u64> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    let mut sum = 0;
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        // Of a link itself, not of what it leads to.
        sum += entry.metadata().with_context(unreadable)?.len();
    }
    Ok(sum)
}

/// Removes these folders, the leases on their cells, and their files from the manifest. To be called while no other
/// process works in the run.
///
/// # Errors
/// If a folder cannot be removed or the manifest cannot be written.
pub fn remove(root: &Path, process: &Process, unneeded: &[Unneeded]) -> Result<()> {
    let keys: HashSet<&str> = unneeded.iter().map(|unneeded| unneeded.cell.key_digits()).collect();
    // The manifest first: a file that it does not list is found by `check`, a file that is gone is not explained.
    let names: HashSet<String> = unneeded
        .iter()
        .map(|unneeded| format!("{CELLS}/{}/", unneeded.cell))
        .collect();
    manifest::forget(root, |path| names.iter().any(|name| path.starts_with(name.as_str())))?;
    for unneeded in unneeded {
        cell_folder::remove(&unneeded.folder)?;
    }
    leases::tidy(process, &|key| {
        key.get(..CellName::KEY_DIGITS)
            .is_some_and(|digits| keys.contains(digits))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::{ProcessInfo, STALE_AFTER};

    #[test]
    fn only_cells_that_no_plan_needs_are_removed() {
        let run = tempfile::tempdir().unwrap();
        let root = run.path();
        let name = |key: &str| CellName::new(key, "digits-mart-s0");
        let (kept, old) = (name("aaaaaaaaaaaa00"), name("bbbbbbbbbbbb00"));
        let foreign = ["notes", "cccccccccccc-x.backup"];
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("precious"), "1").unwrap();
        for folder in [kept.as_str(), old.as_str()].into_iter().chain(foreign) {
            fs::create_dir_all(root.join(CELLS).join(folder)).unwrap();
            fs::write(root.join(CELLS).join(folder).join("rows.json"), "12345").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(elsewhere.path(), root.join(CELLS).join("dddddddddddd-digits-mart-s1")).unwrap();
        let found = unneeded(root, &HashSet::from([&kept])).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&found[0].cell, found[0].bytes), (&old, 5));
        let process = Process::join(root, ProcessInfo::this(None, false, STALE_AFTER)).unwrap();
        remove(root, &process, &found).unwrap();
        assert!(!root.join(CELLS).join(old.as_str()).exists());
        for folder in [kept.as_str()].into_iter().chain(foreign) {
            assert!(root.join(CELLS).join(folder).exists(), "{folder}");
        }
        assert!(elsewhere.path().join("precious").exists());
    }
}
