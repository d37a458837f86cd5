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

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{files, host};

/// A process on another host is taken for dead after this long without a sign of life.
pub(crate) const STALE_AFTER: f64 = 120.0;
/// Signs of life in the span after which a process is taken for dead.
const BEATS: f64 = 12.0;
/// Looks that it takes to see that span pass.
const LOOKS: f64 = 4.0;

/// The end of the name of what a process says of its cells.
const PROGRESS: &str = ".progress";
const PROCESSES: &str = "processes";
const CLAIMS: &str = "claims";

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

/// This process's place in a run. Others see it as long as the value lives.
#[derive(Debug)]
pub(crate) struct Process {
    shared: Arc<Shared>,
    heart: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    about: About,
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

/// Where a process says how far its cells are.
pub(crate) fn progress_file(root: &Path, token: &str) -> PathBuf {
    root.join(PROCESSES).join(format!("{token}{PROGRESS}"))
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
    fn token(&self) -> String {
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
    fn lives(&self, token: &str) -> bool {
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

impl About {
    /// Whether a process on this machine has ended: nobody holds the lock on its file.
    fn is_dead_here(&self, root: &Path, token: &str) -> bool {
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

fn process_file(root: &Path, token: &str) -> PathBuf {
    root.join(PROCESSES).join(format!("{token}.json"))
}

/// What a process says of itself; `None` if it has left, or a power cut emptied its file.
fn read_about(root: &Path, token: &str) -> Option<About> {
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

/// A temporary file that others may read once it has its name.
fn shared_temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// The tokens of all processes that have not left.
fn tokens(root: &Path) -> Result<Vec<String>> {
    let names = names(&root.join(PROCESSES))?;
    Ok(names
        .iter()
        .filter_map(|name| name.strip_suffix(".json"))
        .map(str::to_string)
        .collect())
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
