//! A cell's folder: what state it is in, and how that is recorded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plan::{CELLS, Cell, CellName, Plan};
use serde::{Deserialize, Serialize};

use crate::files;

/// What state a cell's folder is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing is there.
    New,
    /// Begun and interrupted.
    Begun,
    /// Everything is there.
    Done,
    /// It ended in an error.
    Failed(FailedCell),
    /// Marked as finished, but a file is missing or has another size.
    Damaged(String),
}

/// Why a cell failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedCell {
    /// The error with its causes.
    pub error: String,
    /// The same configuration fails again, so it is not tried again unless forced.
    pub repeatable: bool,
    /// It broke a rule that every valid result satisfies.
    pub integrity: bool,
}

/// `status.json`, written last.
///
/// Once [`state`] has found the cell done, its file names are known to be those of files in the cell's folder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The cell's key.
    pub key: String,
    /// The invocation that made the cell, as the manifest names it.
    pub made_by: String,
    /// Why the cell failed, if it did.
    pub failed: Option<FailedCell>,
    /// Size and BLAKE3 of every file of the cell.
    pub files: BTreeMap<String, FileMark>,
}

/// Size and digest of a file when it was written.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct FileMark {
    /// Its length.
    pub bytes: u64,
    /// Its digest, in hexadecimal digits.
    pub blake3: String,
}

impl FileMark {
    /// The record of a file as it is now.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn of(file: &Path) -> Result<Self> {
        results::atomic::spend(|| {
            let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            Ok(Self::of_bytes(&bytes))
        })
    }

    /// The record of a file that holds these bytes.
    fn of_bytes(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            blake3: blake3::hash(bytes).to_hex().to_string(),
        }
    }
}

/// A cell's resolved configuration: JSON of which its key is the hash.
pub const CONFIG: &str = "config.json";
/// Marks a cell as finished or failed.
pub const STATUS: &str = "status.json";

/// Where a cell keeps its files, in the folder of a run.
pub fn cell_folder(root: &Path, cell: &CellName) -> PathBuf {
    root.join(CELLS).join(cell)
}

/// The status in a cell's folder; `None` if the cell is unfinished.
///
/// # Errors
/// If the file is damaged or names files elsewhere.
pub fn status(folder: &Path) -> Result<Option<Status>> {
    let file = folder.join(STATUS);
    let status: Option<Status> = files::read_sealed(&file)?;
    if let Some(status) = &status {
        let elsewhere = status.files.keys().find(|name| !files::is_plain(name));
        anyhow::ensure!(elsewhere.is_none(), "{} names files elsewhere", file.display());
    }
    Ok(status)
}

/// What state a cell of a plan is in, in the run's folder `root`.
pub fn cell_state(plan: &Plan, root: &Path, cell: Cell) -> State {
    state(&plan.folder(root, cell), plan.identity(cell).0)
}

/// What state a cell's folder is in.
pub fn state(folder: &Path, key: &str) -> State {
    if !folder.exists() {
        return State::New;
    }
    let status = match status(folder) {
        Ok(Some(status)) => status,
        Ok(None) => return State::Begun,
        Err(error) => return State::Damaged(format!("{error:#}")),
    };
    if status.key != key {
        return State::Damaged(format!("{} belongs to another cell", folder.display()));
    }
    if let Some(failed) = status.failed {
        return State::Failed(failed);
    }
    if !status.files.contains_key(results::ROWS_FILE) {
        let by = "was written by a program that kept its results in other files than";
        return State::Damaged(format!("{} {by} {}", folder.display(), results::ROWS_FILE));
    }
    for (name, mark) in &status.files {
        let file = folder.join(name);
        match fs::metadata(&file) {
            Ok(metadata) if metadata.len() == mark.bytes => {}
            Ok(_) => return State::Damaged(format!("{} does not have the size that was recorded", file.display())),
            Err(_) => return State::Damaged(format!("{} is missing", file.display())),
        }
    }
    State::Done
}

/// The state that a cell's status claims.
#[derive(Debug, PartialEq, Eq)]
pub enum RecordedState {
    /// Everything is there.
    Done,
    /// It ended in this error.
    Failed(String),
    /// There is no status.
    Unfinished,
}

/// The state that a cell's status claims, unchecked; [`state`] checks the files.
pub fn recorded_state(folder: &Path) -> RecordedState {
    #[derive(Deserialize)]
    struct Recorded {
        failed: Option<FailedCell>,
    }
    match files::read_json(&folder.join(STATUS)) {
        Ok(Some(Recorded { failed: None })) => RecordedState::Done,
        Ok(Some(Recorded { failed: Some(failed) })) => RecordedState::Failed(failed.error),
        Ok(None) | Err(_) => RecordedState::Unfinished,
    }
}

/// Marks a cell as finished: `names` are the files it made.
///
/// # Errors
/// If a file cannot be read or written.
pub fn finish(folder: &Path, key: &str, made_by: &str, names: &[&str]) -> Result<()> {
    let status = Status {
        key: key.to_string(),
        made_by: made_by.to_string(),
        failed: None,
        files: marks(folder, names)?,
    };
    // The last of the cell's files. They are forced to disk together before the cell gets its name.
    files::write_part(&folder.join(STATUS), results::seal::json::to_text(&status)?.as_bytes())
}

/// Marks a cell as failed: `names` are the files that record it.
///
/// # Errors
/// If a file cannot be read or written.
pub fn fail(folder: &Path, key: &str, made_by: &str, failed: FailedCell, names: &[&str]) -> Result<()> {
    files::make_folder(folder)?;
    let status = Status {
        key: key.to_string(),
        made_by: made_by.to_string(),
        failed: Some(failed),
        files: marks(folder, names)?,
    };
    files::write_part(&folder.join(STATUS), results::seal::json::to_text(&status)?.as_bytes())
}

fn marks(folder: &Path, names: &[&str]) -> Result<BTreeMap<String, FileMark>> {
    let mark = |name: &&str| Ok(((*name).to_string(), FileMark::of(&folder.join(name))?));
    names.iter().map(mark).collect()
}

/// Resumes a failed cell in the folder `work`: the next attempt may use its partial results.
///
/// # Errors
/// If the folder cannot be renamed.
pub fn reopen(folder: &Path, work: &Path) -> Result<()> {
    fs::rename(folder, work).with_context(|| format!("cannot rename {}", folder.display()))?;
    match fs::remove_file(work.join(STATUS)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot write {}", work.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a cell: the next run computes it from the beginning.
///
/// # Errors
/// If the folder cannot be removed.
pub fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot empty {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The bytes of a file of a finished cell, which are those that were written.
///
/// # Errors
/// If they are not, or were not recorded.
pub fn read_file(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let file = folder.join(name);
    let mark = status(folder)?.and_then(|mut status| status.files.remove(name));
    let mark = mark.with_context(|| format!("{} is not recorded as finished", file.display()))?;
    let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    anyhow::ensure!(
        FileMark::of_bytes(&bytes) == mark,
        "{} has changed since it was written; delete {} and run again to compute it again",
        file.display(),
        folder.display(),
    );
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_cell_is_finished() {
        let run = tempfile::tempdir().unwrap();
        let folder = cell_folder(run.path(), &CellName::new("0123456789abcdef", "it"));
        assert_eq!(state(&folder, "0123456789abcdef"), State::New);
        files::make_folder(&folder).unwrap();
        assert_eq!(state(&folder, "0123456789abcdef"), State::Begun);
        files::write(&folder.join("rows.json"), b"abc").unwrap();
        finish(&folder, "0123456789abcdef", "me", &["rows.json"]).unwrap();
        assert_eq!(state(&folder, "0123456789abcdef"), State::Done);
        files::write(&folder.join("b"), b"abc").unwrap();
        finish(&folder, "0123456789abcdef", "an older program", &["b"]).unwrap();
        assert!(matches!(state(&folder, "0123456789abcdef"), State::Damaged(why) if why.contains("rows.json")));
        finish(&folder, "0123456789abcdef", "me", &["rows.json"]).unwrap();
        read_file(&folder, "rows.json").unwrap();
        assert!(matches!(state(&folder, "0123456789ab0000"), State::Damaged(_)));
        fs::write(folder.join("rows.json"), b"abd").unwrap();
        assert!(
            read_file(&folder, "rows.json")
                .unwrap_err()
                .to_string()
                .contains("has changed")
        );
        fs::write(folder.join("rows.json"), b"ab").unwrap();
        assert!(matches!(state(&folder, "0123456789abcdef"), State::Damaged(_)));
        fs::write(folder.join(STATUS), b"{").unwrap();
        assert!(matches!(state(&folder, "0123456789abcdef"), State::Damaged(_)));
    }
}
