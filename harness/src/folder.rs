//! The folder of a run: who works in it, and which cells are finished.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plan::{Cell, Plan};
use serde::{Deserialize, Serialize};

use crate::claims::{About, Process};
use crate::exit::Stop;
use crate::files;

/// A run's folder, in which this process is seen to work as long as the value lives.
#[derive(Debug)]
pub(crate) struct RunFolder {
    root: PathBuf,
    process: Process,
}

/// How a cell stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing is there.
    New,
    /// Begun and interrupted.
    Begun,
    /// Everything is there.
    Done,
    /// It ended in an error.
    Failed(FailedCell),
    /// Said to be finished, but a file is missing or has another size.
    Damaged(String),
}

/// Why a cell failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailedCell {
    pub(crate) error: String,
    /// The same configuration fails again, so it is not tried again unless forced.
    pub(crate) repeatable: bool,
    /// It broke a rule that every honest result keeps.
    pub(crate) integrity: bool,
}

/// `status.json`, written last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Status {
    pub(crate) key: String,
    /// The invocation that made the cell, as the manifest names it.
    pub(crate) made_by: String,
    pub(crate) failed: Option<FailedCell>,
    /// Size and BLAKE3 of every file the cell made.
    pub(crate) files: BTreeMap<String, FileMark>,
}

/// What a file was when it was written.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileMark {
    pub(crate) bytes: u64,
    pub(crate) blake3: String,
}

impl FileMark {
    /// Of a file as it is now.
    pub(crate) fn of(file: &Path) -> Result<Self> {
        results::atomic::spend(|| {
            let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            Ok(Self {
                bytes: bytes.len() as u64,
                blake3: blake3::hash(&bytes).to_hex().to_string(),
            })
        })
    }
}

/// Marks a cell as finished or failed.
pub(crate) const STATUS: &str = "status.json";

impl RunFolder {
    /// Makes `<out>/<name>` and joins those who work there, unless they work on another plan or
    /// one of them works alone.
    pub(crate) fn open(out: &Path, name: &str, about: About, say: &dyn Fn(&str)) -> Result<Self> {
        let root = out.join(name);
        let joined = || {
            files::make_folder(&root.join("cells"))?;
            Process::join(&root, about.clone())
        };
        let process = joined().map_err(|error| Stop::usage(format!("{error:#}")))?;
        // Having joined, so that of two who come at once at least one sees the other.
        let mut waited = false;
        loop {
            let others = process.others()?;
            let Some((other, why)) = others
                .iter()
                .find_map(|other| Some((other, in_the_way(&about, other)?)))
            else {
                for other in others.iter().filter(|it| it.plan.is_some()) {
                    say(&format!(
                        "{other} works in {} as well: cells are shared",
                        root.display()
                    ));
                }
                return Ok(Self { root, process });
            };
            // On another host it may be dead, which takes a while to see.
            if waited || other.machine == about.machine {
                return Err(Stop::usage(format!(
                    "another run ({other}) works in {} {why}; wait for it, or choose another folder with --out",
                    root.display(),
                )));
            }
            say(&format!(
                "{other} works in {} {why}: looking whether it lives",
                root.display()
            ));
            waited = !process.dies(other)?;
        }
    }

    /// This process among those that work in the folder.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// `<out>/<name>`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

/// Why two processes cannot work in one folder at the same time, if they cannot.
fn in_the_way(one: &About, other: &About) -> Option<&'static str> {
    match (&one.plan, &other.plan) {
        _ if other.alone => Some("and makes its cells anew (--force)"),
        _ if one.alone => Some("and needs the cells that --force throws away"),
        (Some(one), Some(other)) if one != other => Some("on another matrix"),
        _ => None,
    }
}

/// The state of a cell's folder in the run's folder `root`.
pub(crate) fn cell_state(plan: &Plan, root: &Path, cell: Cell) -> State {
    state(&plan.folder(root, cell), plan.identity(cell).0)
}

/// What a cell's folder says of it; `None` if it is unfinished.
pub(crate) fn status(folder: &Path) -> Result<Option<Status>> {
    files::read_sealed(&folder.join(STATUS))
}

/// How a cell stands.
pub(crate) fn state(folder: &Path, key: &str) -> State {
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
        if !files::is_plain(name) {
            return State::Damaged(format!("{} names files elsewhere", folder.join(STATUS).display()));
        }
        let file = folder.join(name);
        match fs::metadata(&file) {
            Ok(metadata) if metadata.len() == mark.bytes => {}
            Ok(_) => return State::Damaged(format!("{} has another size than when it was written", file.display())),
            Err(_) => return State::Damaged(format!("{} is missing", file.display())),
        }
    }
    State::Done
}

/// How a cell says that it stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Glance {
    Done,
    Failed(String),
    Unfinished,
}

/// How a cell says that it stands; [`state`] looks whether it is so.
pub(crate) fn glance(folder: &Path) -> Glance {
    #[derive(Deserialize)]
    struct Said {
        failed: Option<FailedCell>,
    }
    match files::read_json(&folder.join(STATUS)) {
        Ok(Some(Said { failed: None })) => Glance::Done,
        Ok(Some(Said { failed: Some(failed) })) => Glance::Failed(failed.error),
        Ok(None) | Err(_) => Glance::Unfinished,
    }
}

/// Marks a cell as finished: `names` are the files it made.
pub(crate) fn finish(folder: &Path, key: &str, made_by: &str, names: &[&str]) -> Result<()> {
    let status = Status {
        key: key.to_string(),
        made_by: made_by.to_string(),
        failed: None,
        files: marks(folder, names)?,
    };
    // The last of the cell's files. They are forced to disk together before the cell gets its name.
    files::write_part(&folder.join(STATUS), results::seal::json::to_text(&status)?.as_bytes())
}

/// Marks a cell as failed: `names` are the files that say so.
pub(crate) fn fail(folder: &Path, key: &str, made_by: &str, failed: FailedCell, names: &[&str]) -> Result<()> {
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

/// Goes on with a cell that failed, in the folder `work`: what it had begun may serve the next try.
pub(crate) fn reopen(folder: &Path, work: &Path) -> Result<()> {
    fs::rename(folder, work).with_context(|| format!("cannot rename {}", folder.display()))?;
    match fs::remove_file(work.join(STATUS)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot write {}", work.display()))
        }
        _ => Ok(()),
    }
}

/// Forgets a cell: the next run starts it from nothing.
pub(crate) fn forget(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot empty {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Fails unless a file of a finished cell is byte for byte what was written.
pub(crate) fn check_file(folder: &Path, name: &str) -> Result<()> {
    let file = folder.join(name);
    let mark = status(folder)?.and_then(|mut status| status.files.remove(name));
    let mark = mark.with_context(|| format!("{} is not recorded as finished", file.display()))?;
    anyhow::ensure!(
        FileMark::of(&file)? == mark,
        "{} has changed since it was written; delete {} and run again to make it anew",
        file.display(),
        folder.display(),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_cell_is_finished() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join("0123456789ab-it");
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
        check_file(&folder, "rows.json").unwrap();
        assert!(matches!(state(&folder, "0123456789ab0000"), State::Damaged(_)));
        fs::write(folder.join("rows.json"), b"abd").unwrap();
        assert!(
            check_file(&folder, "rows.json")
                .unwrap_err()
                .to_string()
                .contains("has changed")
        );
        fs::write(folder.join("rows.json"), b"ab").unwrap();
        assert!(matches!(state(&folder, "0123456789abcdef"), State::Damaged(_)));
        fs::write(folder.join(STATUS), b"{").unwrap();
        assert!(matches!(state(&folder, "0123456789abcdef"), State::Damaged(_)));
    }

    #[test]
    fn those_who_would_spoil_each_others_cells_do_not_share_a_folder() {
        let out = tempfile::tempdir().unwrap();
        let open = |plan: &str, alone| {
            let about = About::me(Some(plan.into()), alone, crate::claims::STALE_AFTER);
            RunFolder::open(out.path(), "it", about, &|_| ())
        };
        let first = open("a", false).unwrap();
        open("a", false).unwrap();
        for (plan, alone, part) in [("b", false, "another matrix"), ("a", true, "--force")] {
            let error = open(plan, alone).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("--out"), "{error}");
        }
        drop(first);
        let alone = open("b", true).unwrap();
        let error = open("b", false).unwrap_err().to_string();
        assert!(error.contains("anew"), "{error}");
        drop(alone);
        open("a", false).unwrap();
    }
}
