//! This process among those that work on a run, and which of the others are alive.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use super::info::{PROCESSES, ProcessInfo, Registration, process_file, progress_file, tokens, touched};
use super::listing::remove;
use super::record::LEASES;
use super::token::Token;
use crate::{files, host};

/// Signs of life in the span after which a process counts as dead.
const BEATS: f64 = 12.0;
/// Number of checks during that span.
const CHECKS_PER_SPAN: f64 = 4.0;

/// This process's membership in a run. Others see it as long as the value lives.
#[derive(Debug)]
pub struct Process {
    pub(super) shared: Arc<Shared>,
    heart: Option<JoinHandle<()>>,
}

/// What the threads of this process know about the run.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) root: PathBuf,
    pub(super) info: ProcessInfo,
    registration: Mutex<Registration>,
    stopped: Mutex<bool>,
    stop: Condvar,
    /// The last sign of life of processes on other hosts.
    seen: Mutex<HashMap<Token, Seen>>,
}

/// What was last seen of a process.
#[derive(Debug)]
struct Seen {
    touched: Option<SystemTime>,
    looked: Instant,
    /// How long nothing has changed.
    silent: Duration,
}

/// The value behind a lock, also when a thread has panicked while it held the lock.
fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    /// Shows all who look into the run's folder that this process works there.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn join(root: &Path, info: ProcessInfo) -> Result<Self> {
        files::make_folder(&root.join(PROCESSES))?;
        files::make_folder(&root.join(LEASES))?;
        let registration = Registration::new(root, &info)?;
        let shared = Arc::new(Shared {
            root: root.to_path_buf(),
            info,
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

    /// Where this process reports the progress of its cells.
    pub fn progress_file(&self) -> impl Fn() -> PathBuf + Send + 'static {
        let shared = self.shared.clone();
        move || progress_file(&shared.root, &shared.token())
    }

    /// The other live processes, as far as can be seen now.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn others(&self) -> Result<Vec<ProcessInfo>> {
        let own = self.shared.token();
        let mut others = Vec::new();
        for token in tokens(&self.shared.root)? {
            if token != own && self.shared.lives(&token) {
                others.extend(ProcessInfo::read(&self.shared.root, &token));
            }
        }
        others.sort_by_key(|other| (other.since, other.process));
        Ok(others)
    }

    /// Watches another process until it gives a sign of life (`false`) or counts as dead.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn finds_dead(&self, other: &ProcessInfo) -> Result<bool> {
        let shared = &self.shared;
        let same = |token: &&Token| ProcessInfo::read(&shared.root, token).as_ref() == Some(other);
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
        *locked(&self.shared.stopped) = true;
        self.shared.stop.notify_all();
        if let Some(heart) = self.heart.take() {
            let _ = heart.join();
        }
        // If it stays, others recognize it as the file of a process that has ended.
        remove(&process_file(&self.shared.root, &self.shared.token()));
    }
}

impl Shared {
    pub(super) fn token(&self) -> Token {
        locked(&self.registration).token.clone()
    }

    /// Touches the process's file until stopped.
    fn beat(&self) {
        let pause = Duration::from_secs_f64(self.info.stale_after / BEATS);
        let mut stopped = locked(&self.stopped);
        while !*stopped {
            stopped = self
                .stop
                .wait_timeout(stopped, pause)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if *stopped {
                return;
            }
            let mut registration = locked(&self.registration);
            registration.touch();
            let file = process_file(&self.root, &registration.token);
            if fs::metadata(file).is_err_and(|error| error.kind() == ErrorKind::NotFound)
                && let Ok(again) = Registration::new(&self.root, &self.info)
            {
                // Another process took this one for dead. Its leases are lost, which it notices when it uses them;
                // new leases are taken under another token.
                *registration = again;
            }
        }
    }

    /// Whether a process is alive, as far as can be seen. If not, its file is removed, so that no other process has to
    /// find out.
    pub(super) fn lives(&self, token: &Token) -> bool {
        if *token == self.token() {
            return true;
        }
        let Some(info) = ProcessInfo::read(&self.root, token) else {
            return false;
        };
        let dead = info.is_dead_here(&self.root, token) || self.is_silent(token, &info);
        if dead {
            remove(&process_file(&self.root, token));
            remove(&progress_file(&self.root, token));
        }
        !dead
    }

    /// Whether nothing has been seen of a process for longer than it promised.
    fn is_silent(&self, token: &Token, info: &ProcessInfo) -> bool {
        if info.locked && info.machine == host::machine() {
            return false;
        }
        let touched = touched(&self.root, token);
        let mut seen = locked(&self.seen);
        let seen = seen.entry(token.clone()).or_insert_with(|| Seen {
            touched: None,
            looked: Instant::now(),
            silent: Duration::ZERO,
        });
        // Only time in which this process was watching counts: it cannot have noticed silence while suspended.
        let most = Duration::from_secs_f64(info.stale_after / CHECKS_PER_SPAN);
        let passed = seen.looked.elapsed().min(most);
        seen.silent = if touched == seen.touched {
            seen.silent + passed
        } else {
            Duration::ZERO
        };
        (seen.touched, seen.looked) = (touched, Instant::now());
        seen.silent.as_secs_f64() >= info.stale_after
    }
}
