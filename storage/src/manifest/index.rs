//! The files of a run.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use anyhow::{Context, Result};

use crate::cell_folder::{self, FileMark};

/// The manifest, in a run's folder.
pub const FILE: &str = "manifest.json";

/// Whether a file follows from the cells.
pub fn is_derived(path: &str) -> bool {
    let top = [
        "results.parquet",
        "results.csv",
        "timings.parquet",
        "per_example.parquet",
        "tables.json",
        "report.html",
    ];
    top.contains(&path) || path.starts_with("tables/")
}

/// Size and digest of every file of a run. Those of a finished cell's files are taken from its status: so no file is
/// read twice, and a file that has changed since is listed as it was written.
pub(super) fn index(root: &Path) -> Result<BTreeMap<String, FileMark>> {
    let paths = walk(root)?;
    let mut recorded: BTreeMap<String, FileMark> = BTreeMap::new();
    for path in &paths {
        if let Some(cell) = path
            .strip_suffix(cell_folder::STATUS)
            .filter(|cell| cell.starts_with("cells/"))
            && let Some(status) = cell_folder::status(&root.join(cell))?
        {
            recorded.extend(
                status
                    .files
                    .into_iter()
                    .map(|(name, mark)| (format!("{cell}{name}"), mark)),
            );
        }
    }
    let mut marks = BTreeMap::new();
    for path in paths {
        if path == FILE {
            continue;
        }
        let mark = match recorded.remove(&path) {
            Some(mark) => mark,
            None => match FileMark::of(&root.join(&path)) {
                Ok(mark) => mark,
                // Another process has just tidied up.
                Err(_) if !root.join(&path).exists() => continue,
                Err(error) => return Err(error),
            },
        };
        marks.insert(path, mark);
    }
    // A file that a cell made and that is gone is listed as well.
    marks.extend(recorded);
    Ok(marks)
}

/// Folders in a run's in which processes find each other and schedulers leave their logs.
const WORKINGS: [&str; 3] = ["processes", "claims", "slurm"];

/// The paths of all files under a run's folder, with `/`, except locks, temporary files and the folders of unfinished
/// cells: these are not part of a run.
///
/// # Errors
/// If a folder cannot be read.
pub fn walk(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let unreadable = || format!("cannot read the folder {}", root.join(&folder).display());
        let entries = match std::fs::read_dir(root.join(&folder)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.with_context(unreadable)?,
        };
        for entry in entries {
            let entry = entry.with_context(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || (folder.is_empty() && WORKINGS.contains(&name.as_str())) {
                continue;
            }
            if entry.file_type().with_context(unreadable)?.is_dir() {
                // A cell's own name has no dot: a process still works in such a folder.
                if folder != "cells/" || !name.contains('.') {
                    folders.push(format!("{folder}{name}/"));
                }
            } else {
                found.push(format!("{folder}{name}"));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a path from a file lies inside the run's folder.
pub(super) fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty() && !path.contains(['\\', '\0']) && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::digest;

    #[test]
    fn paths_of_a_run_lead_nowhere_else() {
        for path in ["matrix.yaml", "cells/0a1b-x/rows.json", "tables/white-box.md"] {
            assert!(is_inside(path), "{path}");
        }
        for path in ["", "/etc/passwd", "../x", "cells/../../x", "a\\b", "a\0"] {
            assert!(!is_inside(path), "{path:?}");
        }
    }

    #[test]
    fn every_file_but_hidden_ones_is_in_the_index() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = root.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        for name in [
            "a",
            "tables/b",
            "cells/c/d",
            "cells/c/gone",
            "cells/new/e",
            ".lock",
            "cells/c/.tmp",
            FILE,
        ] {
            write(name, name);
        }
        cell_folder::finish(&root.path().join("cells/c"), "key", "me", &["d", "gone"]).unwrap();
        // Changed after the cell was finished: the index keeps what was written.
        write("cells/c/d", "else");
        std::fs::remove_file(root.path().join("cells/c/gone")).unwrap();
        let index = index(root.path()).unwrap();
        let names: Vec<&str> = index.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "a",
                "cells/c/d",
                "cells/c/gone",
                "cells/c/status.json",
                "cells/new/e",
                "tables/b"
            ]
        );
        assert_eq!(index["cells/c/d"].blake3, digest(b"cells/c/d"));
        assert_eq!(index["tables/b"].bytes, 8);
    }
}
