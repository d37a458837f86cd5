//! Forces finished cells to disk while the next ones are computed.
//!
//! A finished cell has its name at once. A thread of its own forces the files to disk, because waiting for a disk takes
//! longer than computing a small cell. After a power cut in between, a file that did not arrive is recognized by its
//! size or its digest, and the cell is computed again.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use results::atomic::{force_all, force_folder, spend};
use storage::cell_folder::STATUS;
use storage::files::refused;

use crate::panics;

/// The thread that forces cells to disk.
#[derive(Debug)]
pub(super) struct FsyncThread {
    finished: Sender<PathBuf>,
    thread: JoinHandle<Result<()>>,
}

impl FsyncThread {
    /// Starts it.
    pub(super) fn start() -> Result<Self> {
        Self::start_with(force)
    }

    fn start_with(force: fn(&[PathBuf]) -> Result<()>) -> Result<Self> {
        let (finished, folders) = channel();
        let thread = std::thread::Builder::new()
            .name("fsync".into())
            .spawn(move || work(&folders, force))
            .context("cannot start a thread")?;
        Ok(Self { finished, thread })
    }

    /// Hands over a finished cell. Fails if an earlier one could not be forced to disk.
    pub(super) fn note(&self, folder: PathBuf) -> Result<()> {
        let cell = folder.clone();
        // The thread ends with its first failure; [`finish`](Self::finish) returns the reason.
        self.finished.send(folder).map_err(|_| {
            unfinish(&cell);
            anyhow::anyhow!("an earlier cell could not be forced to disk")
        })
    }

    /// Waits until every cell is on disk.
    pub(super) fn finish(self) -> Result<()> {
        drop(self.finished);
        let ended = spend(|| self.thread.join());
        ended.unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that forces cells to disk panicked")))
    }
}

/// Forces one cell after another to disk, and their names whenever none is waiting.
fn work(folders: &Receiver<PathBuf>, force: fn(&[PathBuf]) -> Result<()>) -> Result<()> {
    while let Ok(first) = folders.recv() {
        let mut cells = vec![first];
        cells.extend(folders.try_iter());
        let forced = panics::caught(|| force(&cells)).unwrap_or_else(|panic| Err(panic.into()));
        if let Err(error) = forced {
            // Cells not known to be on disk are computed again.
            cells.extend(folders.try_iter());
            cells.iter().for_each(|folder| unfinish(folder));
            return Err(error);
        }
    }
    Ok(())
}

fn force(cells: &[PathBuf]) -> Result<()> {
    for cell in cells {
        force_all(cell).with_context(|| refused(cell))?;
    }
    let all = cells[0].parent().expect("a cell's folder is in `cells`");
    force_folder(all).with_context(|| refused(all))
}

/// Marks an ended cell as unfinished again.
fn unfinish(cell: &Path) {
    // If even this cannot be written, sizes and digests reveal the damage.
    let _ = std::fs::remove_file(cell.join(STATUS));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished_cell(run: &Path, name: &str) -> PathBuf {
        let folder = run.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(STATUS), "{}").unwrap();
        folder
    }

    /// Hands over cells until the thread has ended, and returns the reason.
    fn reason_of_the_end(thread: FsyncThread, run: &Path) -> String {
        let later = finished_cell(run, "later");
        while thread.note(later.clone()).is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(!later.join(STATUS).exists());
        format!("{:#}", thread.finish().unwrap_err())
    }

    #[test]
    fn a_cell_that_cannot_be_forced_to_disk_is_not_finished() {
        let run = tempfile::tempdir().unwrap();
        let (good, gone) = (finished_cell(run.path(), "good"), run.path().join("gone"));
        let thread = FsyncThread::start().unwrap();
        thread.note(good.clone()).unwrap();
        thread.finish().unwrap();
        assert!(good.join(STATUS).exists());

        let thread = FsyncThread::start().unwrap();
        thread.note(gone).unwrap();
        let error = reason_of_the_end(thread, run.path());
        assert!(error.contains("gone") && error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_panic_in_the_thread_is_an_error() {
        let run = tempfile::tempdir().unwrap();
        let cell = finished_cell(run.path(), "cell");
        let thread = FsyncThread::start_with(|_| panic!("a bug")).unwrap();
        thread.note(cell.clone()).unwrap();
        let error = reason_of_the_end(thread, run.path());
        assert!(error.contains("panicked at ") && error.contains("a bug"), "{error}");
        assert!(!cell.join(STATUS).exists());
    }
}
