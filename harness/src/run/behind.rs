//! Forces finished cells to disk while the next ones are computed.
//!
//! A finished cell has its name at once. Its files are forced to disk behind the others' work, because waiting for a
//! disk takes longer than computing a small cell. After a power cut in between, a file that did not arrive is seen by
//! its size or its digest, and the cell is computed again.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use results::atomic::{force_all, force_folder, spend};

use crate::files::refused;
use crate::folder::STATUS;

/// The thread that does it.
#[derive(Debug)]
pub(super) struct Behind {
    finished: Sender<PathBuf>,
    thread: JoinHandle<Result<()>>,
}

impl Behind {
    pub(super) fn start() -> Result<Self> {
        let (finished, folders) = channel();
        let thread = std::thread::Builder::new()
            .name("behind".into())
            .spawn(move || work(&folders))
            .context("cannot start a thread")?;
        Ok(Self { finished, thread })
    }

    /// Takes note of a finished cell. Fails where one before could not be forced to disk.
    pub(super) fn note(&self, folder: PathBuf) -> Result<()> {
        let shown = folder.clone();
        // The thread ends by its first failure; [`finish`](Self::finish) says why.
        self.finished.send(folder).map_err(|_| {
            unfinish(&shown);
            anyhow::anyhow!("a cell before could not be forced to disk")
        })
    }

    /// Waits until every cell is on disk.
    pub(super) fn finish(self) -> Result<()> {
        drop(self.finished);
        spend(|| self.thread.join().expect("no panic in the thread"))
    }
}

/// Forces one cell after another to disk, and their names whenever none is waiting.
fn work(folders: &Receiver<PathBuf>) -> Result<()> {
    while let Ok(first) = folders.recv() {
        let mut forced = vec![first];
        forced.extend(folders.try_iter());
        if let Err(error) = force(&forced) {
            // Whatever is not known to be on disk is to be computed again.
            forced.extend(folders.try_iter());
            forced.iter().for_each(|folder| unfinish(folder));
            return Err(error);
        }
    }
    Ok(())
}

fn force(cells: &[PathBuf]) -> Result<()> {
    for cell in cells {
        force_all(cell).with_context(|| refused(cell))?;
    }
    let all = cells[0].parent().expect("a cell lies in `cells`");
    force_folder(all).with_context(|| refused(all))
}

/// Takes back that a cell has ended.
fn unfinish(cell: &Path) {
    // Where not even this can be written, sizes and digests tell.
    let _ = std::fs::remove_file(cell.join(STATUS));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_cannot_be_forced_to_disk_is_not_finished() {
        let run = tempfile::tempdir().unwrap();
        let cell = |name: &str| {
            let folder = run.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join(STATUS), "{}").unwrap();
            folder
        };
        let (good, gone) = (cell("good"), run.path().join("gone"));
        let behind = Behind::start().unwrap();
        behind.note(good.clone()).unwrap();
        behind.finish().unwrap();
        assert!(good.join(STATUS).exists());

        let behind = Behind::start().unwrap();
        behind.note(gone).unwrap();
        let later = cell("later");
        while behind.note(later.clone()).is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(!later.join(STATUS).exists());
        let error = format!("{:#}", behind.finish().unwrap_err());
        assert!(error.contains("gone") && error.contains("disk full"), "{error}");
    }
}
