//! Files that appear complete or not at all, and the faults that tests inject.
//!
//! A file is written under a temporary name in the same folder and renamed. Readers find the old file or the new one,
//! even after a crash of the program. Only what was forced to disk survives a power cut: at once, or together with all
//! files of a folder when there is time for it.
//!
//! The environment variable `RAMPART_FAULT` breaks this on purpose. It counts steps in the whole process from 1:
//! before a temporary file is made, before it is filled, before it is renamed; before a file or a folder is forced to
//! disk.
//!
//! | value | effect |
//! |---|---|
//! | `kill@N` | the process dies at step N, without unwinding or flushing |
//! | `fail@N` | step N alone fails, as on a full disk |
//! | `full@N` | step N and every later one fail |
//! | `panic@N` | step N panics, as a bug would |
//! | `nosync@N` | from step N on, a folder cannot be forced to disk, as on some network and FUSE mounts |

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The end of a temporary file's name.
const PARTIAL: &str = ".partial";

static SPENT: AtomicU64 = AtomicU64::new(0);

/// When a file is forced to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Before it gets its name. The name itself is on disk after [`force_folder`].
    Now,
    /// When [`force_all`] is called for its folder.
    Later,
}

/// Writes a file completely or not at all. `write` fills it; the error is its own or the file system's.
pub fn write_atomically<E: From<io::Error>>(
    file: &Path,
    force: Force,
    write: impl FnOnce(&File) -> Result<(), E>,
) -> Result<(), E> {
    spend(|| {
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        step()?;
        let mut builder = tempfile::Builder::new();
        let owner = owner(std::process::id());
        builder.prefix(&owner).suffix(PARTIAL);
        // Results are shared: readable by everyone whom the process's umask allows, not only by the owner.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(folder)?;
        step()?;
        write(temporary.as_file())?;
        if force == Force::Now {
            step()?;
            temporary.as_file().sync_all()?;
        }
        step()?;
        temporary.persist(file).map_err(|error| error.error)?;
        Ok(())
    })
}

/// Forces a folder to disk: the names of the files in it.
///
/// Some network and FUSE mounts know no such thing for folders. The names are there all the same, so that is no error.
pub fn force_folder(folder: &Path) -> io::Result<()> {
    step()?;
    #[cfg(unix)]
    match File::open(folder).and_then(|folder| sync_folder(&folder)) {
        Err(error) if is_unsupported(&error) => {}
        forced => forced?,
    }
    Ok(())
}

#[cfg(unix)]
fn sync_folder(folder: &File) -> io::Result<()> {
    match fault() {
        Some(Fault::NoSync(at)) if STEPS.load(Ordering::Relaxed) >= at => Err(io::Error::from_raw_os_error(EINVAL)),
        _ => folder.sync_all(),
    }
}

/// Whether a file system says that it cannot force a folder to disk, rather than that it failed to.
#[cfg(unix)]
fn is_unsupported(error: &io::Error) -> bool {
    // ENOSYS, ENOTSUP and EOPNOTSUPP; then EINVAL; then EBADF, for a folder that was opened for reading.
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
        || error.raw_os_error() == Some(EBADF)
}

#[cfg(unix)]
const EBADF: i32 = 9;
#[cfg(unix)]
const EINVAL: i32 = 22;

/// Forces every file of a folder to disk, and their names.
pub fn force_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            step()?;
            File::open(entry.path())?.sync_all()?;
        }
    }
    force_folder(folder)
}

/// Removes the temporary files that processes of this machine left in a folder when they were killed.
pub fn clean(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let left = name.to_str().is_some_and(|name| {
            let Some(rest) = name.strip_prefix('.').filter(|rest| rest.ends_with(PARTIAL)) else {
                return false;
            };
            let process = rest.split('-').next().and_then(|process| process.parse().ok());
            process.is_some_and(|process| name.starts_with(&owner(process)) && !is_alive(process))
        });
        if left {
            match fs::remove_file(folder.join(name)) {
                // Another process cleans up as well.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Runs `work` and counts its time among what [`spent`] returns.
pub fn spend<T>(work: impl FnOnce() -> T) -> T {
    let clock = Instant::now();
    let result = work();
    SPENT.fetch_add(clock.elapsed().as_nanos() as u64, Ordering::Relaxed);
    result
}

/// The time that all threads of this process have spent in [`write_atomically`] and [`spend`].
pub fn spent() -> Duration {
    Duration::from_nanos(SPENT.load(Ordering::Relaxed))
}

/// How the temporary files of a process of this machine begin.
fn owner(process: u32) -> String {
    static HOST: OnceLock<String> = OnceLock::new();
    let host = HOST.get_or_init(|| {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        name.chars().filter(char::is_ascii_alphanumeric).take(40).collect()
    });
    format!(".{process}-{host}-")
}

/// If processes cannot be looked up, all count as alive.
fn is_alive(process: u32) -> bool {
    !Path::new("/proc/self").exists() || Path::new("/proc").join(process.to_string()).exists()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Kill(u64),
    Fail(u64),
    Full(u64),
    Panic(u64),
    NoSync(u64),
}

fn parse(text: &str) -> Option<Fault> {
    let (what, step) = text.split_once('@')?;
    let step = step.parse().ok()?;
    match what {
        "kill" => Some(Fault::Kill(step)),
        "fail" => Some(Fault::Fail(step)),
        "full" => Some(Fault::Full(step)),
        "panic" => Some(Fault::Panic(step)),
        "nosync" => Some(Fault::NoSync(step)),
        _ => None,
    }
}

/// Steps so far.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// What the environment asks to break.
fn fault() -> Option<Fault> {
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    *FAULT.get_or_init(|| {
        let text = std::env::var("RAMPART_FAULT").ok()?;
        let known = "kill@N, fail@N, full@N, panic@N and nosync@N";
        Some(parse(&text).unwrap_or_else(|| panic!("RAMPART_FAULT={text} is none of {known}")))
    })
}

/// One step of a write.
fn step() -> io::Result<()> {
    let Some(fault) = fault() else { return Ok(()) };
    let now = STEPS.fetch_add(1, Ordering::Relaxed) + 1;
    match fault {
        Fault::Kill(at) if now == at => std::process::abort(),
        Fault::Fail(at) if now == at => Err(io::ErrorKind::StorageFull.into()),
        Fault::Full(at) if now >= at => Err(io::ErrorKind::StorageFull.into()),
        Fault::Panic(at) if now == at => panic!("RAMPART_FAULT asked for a panic at step {at}"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_cannot_be_filled_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        write_atomically(&file, Force::Later, |mut temporary| temporary.write_all(b"old")).unwrap();
        let failed = write_atomically(&file, Force::Now, |mut temporary| {
            temporary.write_all(b"ne")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["file"]);
        force_all(folder.path()).unwrap();
        assert!(spent() > Duration::ZERO);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        // No process has the largest number, and this one lives.
        let (dead, alive) = (owner(u32::MAX) + "a.partial", owner(std::process::id()) + "a.partial");
        let elsewhere = format!(".{}-another-machine-a.partial", u32::MAX);
        for name in [&dead, &alive, &elsewhere, "file", ".lock"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        clean(folder.path()).unwrap();
        let mut expected = [alive, elsewhere, "file".to_string(), ".lock".to_string()];
        expected.sort();
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn faults_are_read() {
        assert_eq!(parse("kill@7"), Some(Fault::Kill(7)));
        assert_eq!(parse("full@1"), Some(Fault::Full(1)));
        assert_eq!(parse("panic@2"), Some(Fault::Panic(2)));
        assert_eq!(parse("fail@x"), None);
        assert_eq!(parse("burn@1"), None);
    }
}
