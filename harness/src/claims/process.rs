//! The processes that work on a run, and whether they live.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{CLAIMS, names, remove, shared_temporary, token};
use crate::{files, host};

/// A process on another host is taken for dead after this long without a sign of life.
pub(crate) const STALE_AFTER: f64 = 120.0;
/// Signs of life in the span after which a process is taken for dead.
const BEATS: f64 = 12.0;
/// Looks that it takes to see that span pass.
const LOOKS: f64 = 4.0;

/// The end of the name of what a process says of its cells.
pub(super) const PROGRESS: &str = ".progress";
pub(super) const PROCESSES: &str = "processes";

/// What a process says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    pub(crate) host: String,
    /// Equal where the lock on the process's file can be asked: on the same running machine.
    pub(crate) machine: String,
    pub(crate) process: u32,
    /// Seconds since 1970, for people.
    pub(crate) since: u64,
    /// Hash of what the run's tables and cells are. `None`: it only reads them.
    pub(crate) plan: Option<String>,
    /// It throws results away, so nobody may work beside it.
    pub(crate) alone: bool,
    /// Whether the file is locked while the process lives; some shared folders know no locks.
    pub(crate) locked: bool,
    /// Seconds without a sign of life after which others may take its cells.
    pub(crate) stale_after: f64,
}

impl About {
    /// This process, as one that works on a plan.
    pub(crate) fn me(plan: Option<String>, alone: bool, stale_after: f64) -> Self {
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
}

impl std::fmt::Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)
    }
}

/// This process's place in a run. Others see it as long as the value lives.
#[derive(Debug)]
pub(crate) struct Process {
    pub(super) shared: Arc<Shared>,
    heart: Option<JoinHandle<()>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) root: PathBuf,
    pub(super) about: About,
    registration: Mutex<Registration>,
    stopped: Mutex<bool>,
    stop: Condvar,
    /// The last sign of life of processes on other hosts.
    seen: Mutex<HashMap<String, Seen>>,
}

/// The file that others look at.
#[derive(Debug)]
struct Registration {
    token: String,
    /// Holds the lock.
    file: File,
}

/// What was last seen of a process.
#[derive(Debug)]
struct Seen {
    touched: Option<SystemTime>,
    looked: Instant,
    /// How long nothing has changed.
    silent: Duration,
}

impl Process {
    /// Tells all who look into the run's folder that this process works there.
    pub(crate) fn join(root: &Path, about: About) -> Result<Self> {
        files::make_folder(&root.join(PROCESSES))?;
        files::make_folder(&root.join(CLAIMS))?;
        let registration = register(root, &about)?;
        let shared = Arc::new(Shared {
            root: root.to_path_buf(),
            about,
            registration: Mutex::new(registration),
            stopped: Mutex::new(false),
            stop: Condvar::new(),
            seen: Mutex::default(),
        });
        let beating = shared.clone();
        let heart = std::thread::Builder::new()
            .name("heart".into())
            .spawn(move || beating.beat())
            .context("cannot start a thread")?;
        Ok(Self {
            shared,
            heart: Some(heart),
        })
    }

    /// Where this process says how far its cells are.
    pub(crate) fn progress_file(&self) -> impl Fn() -> PathBuf + Send + 'static {
        let shared = self.shared.clone();
        move || progress_file(&shared.root, &shared.token())
    }

    /// The other processes that live, as far as one look can tell.
    pub(crate) fn others(&self) -> Result<Vec<About>> {
        let own = self.shared.token();
        let mut others = Vec::new();
        for token in tokens(&self.shared.root)? {
            if token != own && self.shared.lives(&token) {
                others.extend(read_about(&self.shared.root, &token));
            }
        }
        others.sort_by_key(|it| (it.since, it.process));
        Ok(others)
    }

    /// Looks at another process until it gives a sign of life (`false`) or is taken for dead.
    pub(crate) fn dies(&self, other: &About) -> Result<bool> {
        let shared = &self.shared;
        let same = |token: &&String| read_about(&shared.root, token).as_ref() == Some(other);
        let Some(token) = tokens(&shared.root)?.iter().find(same).cloned() else {
            return Ok(true);
        };
        let before = touched(&shared.root, &token);
        while shared.lives(&token) {
            if touched(&shared.root, &token) != before {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_secs_f64(other.stale_after / BEATS / 4.0));
        }
        Ok(true)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        *self.shared.stopped.lock().expect("no panic while held") = true;
        self.shared.stop.notify_all();
        if let Some(heart) = self.heart.take() {
            let _ = heart.join();
        }
        let file = process_file(&self.shared.root, &self.shared.token());
        // Left behind, it is taken for what it is: the file of a process that has ended.
        let _ = fs::remove_file(file);
    }
}

/// Where a process says how far its cells are.
pub(crate) fn progress_file(root: &Path, token: &str) -> PathBuf {
    root.join(PROCESSES).join(format!("{token}{PROGRESS}"))
}

impl Shared {
    pub(super) fn token(&self) -> String {
        self.registration.lock().expect("no panic while held").token.clone()
    }

    /// Touches the process's file until told to stop.
    fn beat(&self) {
        let pause = Duration::from_secs_f64(self.about.stale_after / BEATS);
        let mut stopped = self.stopped.lock().expect("no panic while held");
        while !*stopped {
            stopped = self.stop.wait_timeout(stopped, pause).expect("no panic while held").0;
            if *stopped {
                return;
            }
            let mut registration = self.registration.lock().expect("no panic while held");
            // A folder that is out of reach now may be back at the next beat.
            let _ = registration.file.set_modified(SystemTime::now());
            let file = process_file(&self.root, &registration.token);
            if fs::metadata(file).is_err_and(|error| error.kind() == ErrorKind::NotFound)
                && let Ok(anew) = register(&self.root, &self.about)
            {
                // Taken for dead. What was claimed is lost, and found to be so; what comes next
                // is claimed under another token.
                *registration = anew;
            }
        }
    }

    /// Whether a process lives, as far as can be seen. If not, its file is removed, so that nobody
    /// else has to find out.
    pub(super) fn lives(&self, token: &str) -> bool {
        if token == self.token() {
            return true;
        }
        let Some(about) = read_about(&self.root, token) else {
            return false;
        };
        let dead = about.is_dead_here(&self.root, token) || self.is_silent(token, &about);
        if dead {
            remove(&process_file(&self.root, token));
            remove(&progress_file(&self.root, token));
        }
        !dead
    }

    /// Whether nothing has been seen of a process for as long as it promised not to be silent.
    fn is_silent(&self, token: &str, about: &About) -> bool {
        if about.locked && about.machine == host::machine() {
            return false;
        }
        let touched = touched(&self.root, token);
        let mut seen = self.seen.lock().expect("no panic while held");
        let seen = seen.entry(token.to_string()).or_insert_with(|| Seen {
            touched: None,
            looked: Instant::now(),
            silent: Duration::ZERO,
        });
        // Only time in which we looked counts: whoever slept itself has not seen others be silent.
        let most = Duration::from_secs_f64(about.stale_after / LOOKS);
        let passed = seen.looked.elapsed().min(most);
        seen.silent = if touched == seen.touched {
            seen.silent + passed
        } else {
            Duration::ZERO
        };
        (seen.touched, seen.looked) = (touched, Instant::now());
        seen.silent.as_secs_f64() >= about.stale_after
    }
}

impl About {
    /// Whether a process on this machine has ended: nobody holds the lock on its file.
    pub(super) fn is_dead_here(&self, root: &Path, token: &str) -> bool {
        if !self.locked || self.machine != host::machine() {
            return false;
        }
        let file = File::options().read(true).write(true).open(process_file(root, token));
        match file {
            // Shared, so that two who ask do not take each other for the process.
            Ok(file) => file.try_lock_shared().is_ok(),
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }
}

pub(super) fn process_file(root: &Path, token: &str) -> PathBuf {
    root.join(PROCESSES).join(format!("{token}.json"))
}

/// What a process says of itself; `None` if it has left, or a power cut emptied its file.
pub(super) fn read_about(root: &Path, token: &str) -> Option<About> {
    files::read_json(&process_file(root, token)).ok().flatten()
}

/// When a process last gave a sign of life, by a clock that may be wrong.
fn touched(root: &Path, token: &str) -> Option<SystemTime> {
    // Opened, not only asked for: a network file system then shows what is there now.
    let file = File::open(process_file(root, token)).ok()?;
    file.metadata().ok()?.modified().ok()
}

/// Makes and locks a process's file under a new token.
fn register(root: &Path, about: &About) -> Result<Registration> {
    let token = token();
    let name = process_file(root, &token);
    let registered = || -> std::io::Result<File> {
        let mut temporary = shared_temporary(&root.join(PROCESSES))?;
        let mut about = about.clone();
        // Locked before it has a name by which others ask whether it is locked.
        match temporary.as_file().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ErrorKind::ResourceBusy.into()),
            Err(TryLockError::Error(_)) => about.locked = false,
        }
        temporary.write_all(serde_json::to_string_pretty(&about)?.as_bytes())?;
        temporary.as_file().sync_all()?;
        Ok(temporary.persist(&name)?)
    };
    // Somebody may tidy up meanwhile.
    let tidied = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
    let mut file = registered();
    for _ in 0..10 {
        if file.as_ref().is_err_and(tidied) {
            file = registered();
        }
    }
    let file = file.with_context(|| {
        format!(
            "cannot write {}; is the disk full or the folder read-only?",
            name.display()
        )
    })?;
    Ok(Registration { token, file })
}

/// The tokens of all processes that have not left.
pub(super) fn tokens(root: &Path) -> Result<Vec<String>> {
    let names = names(&root.join(PROCESSES))?;
    Ok(names
        .iter()
        .filter_map(|name| name.strip_suffix(".json"))
        .map(str::to_string)
        .collect())
}
