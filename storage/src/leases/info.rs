//! What a process reports to the others about itself: the files in `processes`.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::listing::{names, remove, shared_temporary};
use super::token::Token;
use crate::{files, host};

/// A process on another host counts as dead after this many seconds without a sign of life.
pub const STALE_AFTER: f64 = 120.0;

/// The folder, in a run's.
pub(super) const PROCESSES: &str = "processes";
/// Extension of the file in which a process reports the progress of its cells.
const PROGRESS: &str = ".progress";

/// What a process reports about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessInfo {
    /// The host's name.
    pub host: String,
    /// Equal for processes on the same machine since its start: there the lock on a process's file can be tested.
    pub machine: String,
    /// The process's number.
    pub process: u32,
    /// Seconds since 1970, for people.
    pub since: u64,
    /// Hash of the run's tables and cells. `None`: the process only reads them.
    pub plan: Option<String>,
    /// The process discards results, so no other may run at the same time.
    pub alone: bool,
    /// Whether the file is locked while the process lives; some shared folders know no locks.
    pub locked: bool,
    /// Seconds without a sign of life after which others may take its cells.
    pub stale_after: f64,
}

impl ProcessInfo {
    /// This process, as one that works on a plan.
    pub fn this(plan: Option<String>, alone: bool, stale_after: f64) -> Self {
        Self {
            host: host::name(),
            machine: host::machine(),
            process: std::process::id(),
            since: host::now(),
            plan,
            alone,
            locked: true,
            stale_after,
        }
    }

    /// What a process reports; `None` if it has left, or if its file is damaged, as after a power cut.
    pub fn read(root: &Path, token: &Token) -> Option<Self> {
        // More than a century is as good as forever, and a non-positive span would leave no time to check.
        const LONGEST: f64 = 4e9;
        let info: Option<Self> = files::read_json(&process_file(root, token)).ok().flatten();
        info.filter(|info| info.stale_after > 0.0 && info.stale_after < LONGEST)
    }

    /// Whether a process on this machine has ended: its file is not locked.
    pub(super) fn is_dead_here(&self, root: &Path, token: &Token) -> bool {
        if !self.locked || self.machine != host::machine() {
            return false;
        }
        let file = File::options().read(true).write(true).open(process_file(root, token));
        match file {
            // A shared lock, so that two processes that test it do not mistake each other for its owner.
            Ok(file) => file.try_lock_shared().is_ok(),
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }
}

impl std::fmt::Display for ProcessInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)
    }
}

/// The file that others look at.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) token: Token,
    /// Holds the lock.
    file: File,
}

impl Registration {
    /// Writes and locks a process's file under a new token.
    pub(super) fn new(root: &Path, info: &ProcessInfo) -> Result<Self> {
        let token = Token::new();
        let name = process_file(root, &token);
        let registered = || -> std::io::Result<File> {
            let mut temporary = shared_temporary(&root.join(PROCESSES))?;
            let mut info = info.clone();
            // Locked before it has a name under which others test the lock.
            match temporary.as_file().try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(ErrorKind::ResourceBusy.into()),
                Err(TryLockError::Error(_)) => info.locked = false,
            }
            temporary.write_all(serde_json::to_string_pretty(&info)?.as_bytes())?;
            temporary.as_file().sync_all()?;
            Ok(temporary.persist(&name)?)
        };
        // Another process may tidy up meanwhile.
        let tidied = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
        let mut file = registered();
        for _ in 0..10 {
            if file.as_ref().is_err_and(tidied) {
                file = registered();
            }
        }
        let file = file.with_context(|| files::refused(&name))?;
        Ok(Self { token, file })
    }

    /// Gives a sign of life. A folder that is out of reach now may be back at the next one.
    pub(super) fn touch(&self) {
        let _ = self.file.set_modified(SystemTime::now());
    }
}

/// The file in which a process reports about itself.
pub fn process_file(root: &Path, token: &Token) -> PathBuf {
    root.join(PROCESSES).join(format!("{token}.json"))
}

/// Where a process reports the progress of its cells.
pub fn progress_file(root: &Path, token: &Token) -> PathBuf {
    root.join(PROCESSES).join(format!("{token}{PROGRESS}"))
}

/// When a process last gave a sign of life, by a clock that may be wrong.
pub(super) fn touched(root: &Path, token: &Token) -> Option<SystemTime> {
    // Opened, not only asked for: a network file system then shows what is there now.
    let file = File::open(process_file(root, token)).ok()?;
    file.metadata().ok()?.modified().ok()
}

/// The tokens of all processes that have not left.
pub(super) fn tokens(root: &Path) -> Result<Vec<Token>> {
    let names = names(&root.join(PROCESSES))?;
    let tokens = names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok());
    Ok(tokens.collect())
}

/// Removes the progress of processes that have left.
pub(super) fn remove_stale_progress(root: &Path) -> Result<()> {
    let living = tokens(root)?;
    for name in names(&root.join(PROCESSES))? {
        let token = name.strip_suffix(PROGRESS).and_then(|token| token.parse().ok());
        if token.is_some_and(|token| !living.contains(&token)) {
            remove(&root.join(PROCESSES).join(name));
        }
    }
    Ok(())
}
