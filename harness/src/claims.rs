//! Who works on what, so that several processes, also on several hosts that share a folder, may
//! work on one run.
//!
//! ```text
//! processes/<token>.json    a process: host, number, since when; locked and touched while it lives
//! processes/<token>.progress  how far its cells are, for those who watch
//! claims/<key>.<n>          the n-th claim on a cell: by which process, and where it works
//! cells/<cell>.<token>/     where the owner of a claim works, alone
//! cells/<cell>/             a cell that ended, renamed to this name with everything in it
//! ```
//!
//! - A claim is a file that nobody but its maker can have made: it appears under its name with its
//!   content, or not at all. The highest number holds; numbers start again only when the cell has ended.
//! - A claim lives as long as its process. On the same host a process lives as long as the operating
//!   system holds the lock on its file. On another host it lives as long as its file's time changes
//!   within the span it promised; it is the change that counts, seen by the one who waits, so clocks
//!   may differ.
//! - Whoever takes a dead claim over makes the next number and renames the old owner's folder to one
//!   of its own. An old owner that was not dead but only slow finds its folder gone: it can write
//!   neither into the new owner's folder nor into the finished cell.
//! - A cell ends by one rename of a folder. If two processes did compute it, the first stays; but for
//!   the timings, the second would have been the same bytes.

mod process;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub(crate) use self::process::{About, Process, STALE_AFTER, progress_file};
use self::process::{PROCESSES, PROGRESS, Shared, read_about, tokens};
use crate::{files, host};

const CLAIMS: &str = "claims";

/// A claim as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    /// Token of the process.
    pub(crate) by: String,
    pub(crate) host: String,
    pub(crate) process: u32,
    /// Seconds since 1970, for people.
    pub(crate) since: u64,
    /// Name of the folder in `cells` where the owner works.
    pub(crate) work: String,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)
    }
}

/// What came of an attempt to claim a cell.
#[derive(Debug)]
pub(crate) enum Attempt {
    Held(Claim),
    /// Somebody else works on it.
    Busy(Note),
}

/// A cell that is this process's own.
#[derive(Debug)]
pub(crate) struct Claim {
    shared: Arc<Shared>,
    key: String,
    number: u64,
    note: Note,
    work: PathBuf,
}

/// How a finished cell came to its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Published {
    Ours,
    /// Somebody else had finished it.
    Theirs,
    /// The claim was taken over, and with it the folder.
    Lost,
}

impl Process {
    /// Claims what `key` stands for, unless somebody living holds it. `cell` is the name of its
    /// folder in `cells`; what a dead owner had begun is then found in [`Claim::work`].
    pub(crate) fn claim(&self, key: &str, cell: &str) -> Result<Attempt> {
        let shared = &self.shared;
        loop {
            let numbers = shared.numbers(key)?;
            if let Some(note) = numbers.last().and_then(|&number| shared.note(key, number))
                && shared.lives(&note.by)
            {
                return Ok(Attempt::Busy(note));
            }
            let number = numbers.last().map_or(1, |last| last + 1);
            let note = Note {
                by: shared.token(),
                host: shared.about.host.clone(),
                process: shared.about.process,
                since: host::now(),
                work: format!("{cell}.{}", token()),
            };
            if !shared.make(key, number, &note)? {
                continue;
            }
            let claim = Claim {
                shared: shared.clone(),
                key: key.to_string(),
                number,
                work: shared.root.join("cells").join(&note.work),
                note,
            };
            // Somebody may have seen an older list, and made a number that is long past.
            let now = shared.numbers(key)?;
            if now.last() != Some(&number) {
                claim.remove();
                continue;
            }
            claim.adopt(now.into_iter().rev().skip(1))?;
            return Ok(Attempt::Held(claim));
        }
    }

    /// Who holds each of these keys, where somebody living does.
    pub(crate) fn holders(&self, keys: &[&str]) -> Result<BTreeMap<String, Note>> {
        let mut all = self.shared.last_notes()?;
        all.retain(|key, note| keys.contains(&key.as_str()) && self.shared.lives(&note.by));
        Ok(all)
    }

    /// Claims `key`, waiting for whoever holds it; `None` if `stop` says so meanwhile.
    pub(crate) fn wait_for(&self, key: &str, stop: &dyn Fn() -> bool) -> Result<Option<Claim>> {
        loop {
            match self.claim(key, key)? {
                Attempt::Held(claim) => return Ok(Some(claim)),
                Attempt::Busy(_) if stop() => return Ok(None),
                Attempt::Busy(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

/// The claims of a run that some living process may hold, by key, without joining it: on this host
/// those whose process lives, on others all whose process has not left.
pub(crate) fn watch(root: &Path) -> Result<BTreeMap<String, Note>> {
    let mut lives = HashMap::new();
    let mut notes = last_notes(root)?;
    notes.retain(|_, note| {
        *lives
            .entry(note.by.clone())
            .or_insert_with(|| match read_about(root, &note.by) {
                None => false,
                Some(about) => !about.is_dead_here(root, &note.by),
            })
    });
    Ok(notes)
}

/// The names of the cells that somebody has begun and not ended.
pub(crate) fn begun(root: &Path) -> Result<HashSet<String>> {
    let names = names(&root.join("cells"))?;
    let begun = names.iter().filter_map(|name| name.split_once('.'));
    Ok(begun.map(|(cell, _)| cell.to_string()).collect())
}

/// Removes what dead processes left behind: of cells that have ended their claims and folders, and
/// files that never had a name. To be called while nobody else works in the run.
pub(crate) fn tidy(process: &Process, ended: &dyn Fn(&str) -> bool) -> Result<()> {
    let root = &process.shared.root;
    for (key, note) in process.shared.last_notes()? {
        if ended(&key) {
            for number in process.shared.numbers(&key)? {
                remove(&process.shared.claim_file(&key, number));
            }
            remove_folder(&root.join("cells").join(note.work));
        }
    }
    // Left by whoever was killed.
    let living = tokens(root)?;
    for name in names(&root.join(PROCESSES))? {
        let token = name.strip_suffix(PROGRESS);
        if token.is_some_and(|token| !living.iter().any(|it| it == token)) {
            remove(&root.join(PROCESSES).join(name));
        }
    }
    // Killed before it had a name.
    for folder in [PROCESSES, CLAIMS] {
        let folder = root.join(folder);
        for name in names(&folder)?.iter().filter(|name| name.starts_with('.')) {
            remove(&folder.join(name));
        }
    }
    Ok(())
}

impl Shared {
    fn claim_file(&self, key: &str, number: u64) -> PathBuf {
        self.root.join(CLAIMS).join(format!("{key}.{number}"))
    }

    /// The numbers of a key's claims, ascending.
    fn numbers(&self, key: &str) -> Result<Vec<u64>> {
        let mut numbers: Vec<u64> = claims(&self.root)?
            .into_iter()
            .filter_map(|(of, number)| (of == key).then_some(number))
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What a claim says. `None`: it is gone, or a power cut left it empty.
    fn note(&self, key: &str, number: u64) -> Option<Note> {
        files::read_json(&self.claim_file(key, number)).ok().flatten()
    }

    fn last_notes(&self) -> Result<BTreeMap<String, Note>> {
        last_notes(&self.root)
    }

    /// Makes a claim's file, whole or not at all. `false`: somebody else has.
    fn make(&self, key: &str, number: u64, note: &Note) -> Result<bool> {
        let file = self.claim_file(key, number);
        let made = || -> std::io::Result<()> {
            let mut temporary = shared_temporary(&self.root.join(CLAIMS))?;
            temporary.write_all(serde_json::to_string(note)?.as_bytes())?;
            // Closed before it gets its name: other hosts then see the name with the content.
            temporary.into_temp_path().persist_noclobber(&file)?;
            Ok(())
        };
        match made() {
            Ok(()) => Ok(true),
            // A network file system may say no although it did.
            Err(_) if self.note(key, number).as_ref() == Some(note) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            // Somebody tidied up meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                files::make_folder(&self.root.join(CLAIMS))?;
                Ok(false)
            }
            Err(error) => Err(error).with_context(|| {
                format!(
                    "cannot write {}; is the disk full or the folder read-only?",
                    file.display()
                )
            }),
        }
    }
}

impl Claim {
    /// Where to work. The folder exists if a dead owner had begun.
    pub(crate) fn work(&self) -> &Path {
        &self.work
    }

    pub(crate) fn note(&self) -> Note {
        self.note.clone()
    }

    /// Takes the folder of the last owner that left one, and forgets all earlier claims.
    fn adopt(&self, older: impl Iterator<Item = u64>) -> Result<()> {
        for number in older {
            if let Some(note) = self.shared.note(&self.key, number) {
                let left = self.shared.root.join("cells").join(&note.work);
                match self.work.exists() {
                    true => remove_folder(&left),
                    false => match fs::rename(&left, &self.work) {
                        Err(error) if error.kind() != ErrorKind::NotFound => {
                            return Err(error).with_context(|| format!("cannot rename {}", left.display()));
                        }
                        _ => {}
                    },
                }
            }
            remove(&self.shared.claim_file(&self.key, number));
        }
        Ok(())
    }

    /// Whether the claim still holds, as far as a look can tell.
    pub(crate) fn holds(&self) -> bool {
        let last = self.shared.numbers(&self.key).ok().and_then(|it| it.last().copied());
        self.note.by == self.shared.token() && last == Some(self.number)
    }

    /// Gives the cell's folder its final name, unless `ended` says that somebody else has, and ends
    /// the claim. A folder that lies there and has not ended is replaced.
    pub(crate) fn publish(self, folder: &Path, ended: &dyn Fn() -> bool) -> Result<Published> {
        loop {
            match fs::rename(&self.work, folder) {
                Ok(()) => {
                    self.remove();
                    return Ok(Published::Ours);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Published::Lost),
                Err(_) if ended() => {
                    remove_folder(&self.work);
                    self.remove();
                    return Ok(Published::Theirs);
                }
                Err(error) if folder.exists() => {
                    let aside = folder.with_extension(token());
                    fs::rename(folder, &aside)
                        .with_context(|| format!("cannot replace {} ({error})", folder.display()))?;
                    remove_folder(&aside);
                }
                Err(error) => return Err(error).with_context(|| format!("cannot write {}", folder.display())),
            }
        }
    }

    /// Ends the claim without a result, and what was begun with it.
    pub(crate) fn drop_all(self) {
        remove_folder(&self.work);
        self.remove();
    }

    /// Whoever took the claim over has removed it, and the number may have come again since.
    fn remove(&self) {
        let note = self.shared.note(&self.key, self.number);
        if note.as_ref() == Some(&self.note) {
            remove(&self.shared.claim_file(&self.key, self.number));
        }
    }
}

/// A temporary file that others may read once it has its name.
fn shared_temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Every claim: key and number.
fn claims(root: &Path) -> Result<Vec<(String, u64)>> {
    let names = names(&root.join(CLAIMS))?;
    Ok(names
        .iter()
        .filter_map(|name| name.split_once('.'))
        .filter(|(key, _)| !key.is_empty())
        .filter_map(|(key, number)| Some((key.to_string(), number.parse().ok()?)))
        .collect())
}

/// The claim that holds, of every key.
fn last_notes(root: &Path) -> Result<BTreeMap<String, Note>> {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for (key, number) in claims(root)? {
        let highest = last.entry(key).or_default();
        *highest = (*highest).max(number);
    }
    let note = |(key, number)| -> Option<(String, Note)> {
        let file = root.join(CLAIMS).join(format!("{key}.{number}"));
        Some((key, files::read_json(&file).ok().flatten()?))
    };
    Ok(last.into_iter().filter_map(note).collect())
}

/// The names in a folder; none if there is no such folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let unreadable = || format!("cannot read {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(unreadable)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.with_context(unreadable)?.file_name().into_string().ok());
    }
    Ok(names)
}

/// A name that no other process, on whatever host, has chosen: 16 hexadecimal digits.
fn token() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    // The standard library seeds its hash maps with the system's randomness.
    let random = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), now);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let text = format!("{}/{}/{now}/{random}/{count}", host::machine(), std::process::id());
    blake3::hash(text.as_bytes()).to_hex()[..16].to_string()
}

/// Left behind, a file of a claim or a process is found dead by the next who looks.
fn remove(file: &Path) {
    let _ = fs::remove_file(file);
}

/// Left behind, a folder wastes space and nothing else.
fn remove_folder(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
}

#[cfg(test)]
mod tests;
