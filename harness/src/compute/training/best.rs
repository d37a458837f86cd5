//! The best checkpoint so far, in a file named for its content.
//!
//! A training that was killed resumes from its last save. On another processor it may round differently from there on,
//! so a best checkpoint that was written after that save can belong to epochs that this training never had. Therefore
//! each best checkpoint has a file of its own, a save names the one that belongs to it, and no other file is used.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use storage::files;

const PREFIX: &str = "best-";
const SUFFIX: &str = ".safetensors";

/// The files of the best checkpoints that a training still needs.
#[derive(Debug)]
pub(super) struct BestFiles {
    folder: PathBuf,
    /// Digest of the best checkpoint so far.
    current: Option<String>,
    /// Digest of the one that the save on disk names.
    saved: Option<String>,
}

impl BestFiles {
    /// The files of a training whose save names this digest, or of a new training. Other files of this kind are
    /// removed. Fails if the named file is missing or has changed.
    pub(super) fn open(folder: &Path, named: Option<&str>) -> Result<Self> {
        if let Some(digest) = named {
            let file = folder.join(file_name(digest));
            let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            anyhow::ensure!(
                blake3::hash(&bytes).to_hex().as_str() == digest,
                "{} has changed since it was written",
                file.display()
            );
        }
        remove_others(folder, named);
        Ok(Self {
            folder: folder.to_path_buf(),
            current: named.map(str::to_string),
            saved: named.map(str::to_string),
        })
    }

    /// Keeps a checkpoint as the best so far. Returns its digest.
    pub(super) fn keep(&mut self, checkpoint: &[u8]) -> Result<String> {
        let digest = blake3::hash(checkpoint).to_hex().to_string();
        files::write_part(&self.folder.join(file_name(&digest)), checkpoint)?;
        let before = self.current.replace(digest.clone());
        if before != self.saved && before.as_ref() != Some(&digest) {
            self.remove(before);
        }
        Ok(digest)
    }

    /// To be called when a save that names the best so far is on disk: an earlier one is no longer needed.
    pub(super) fn saved(&mut self) {
        if self.saved != self.current {
            let before = std::mem::replace(&mut self.saved, self.current.clone());
            self.remove(before);
        }
    }

    /// Copies the best checkpoint to its final name. The file itself stays until the cell has ended, so that a kill
    /// in between leaves what the save names.
    pub(super) fn publish(&self, file: &Path) -> Result<()> {
        let digest = self.current.as_ref().context("there is no best checkpoint")?;
        let kept = self.folder.join(file_name(digest));
        let bytes = std::fs::read(&kept).with_context(|| format!("cannot read {}", kept.display()))?;
        files::write_part(file, &bytes)
    }

    fn remove(&self, digest: Option<String>) {
        if let Some(digest) = digest {
            // A file that stays wastes space and nothing else.
            let _ = std::fs::remove_file(self.folder.join(file_name(&digest)));
        }
    }
}

/// Removes all files of best checkpoints except the named one.
pub(super) fn remove_others(folder: &Path, named: Option<&str>) {
    let named = named.map(file_name);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) && Some(&name) != named.as_ref() {
            // A file that stays wastes space and nothing else.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn file_name(digest: &str) -> String {
    const DIGITS: usize = 16;
    // Read from a file, so it may be anything; the whole digest of the file is compared as well.
    let digits: String = digest.chars().filter(char::is_ascii_hexdigit).take(DIGITS).collect();
    format!("{PREFIX}{digits}{SUFFIX}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn digest(bytes: &[u8]) -> String {
        blake3::hash(bytes).to_hex().to_string()
    }

    #[test]
    fn what_a_save_names_stays_until_the_next_save() {
        let folder = tempfile::tempdir().unwrap();
        let name = |bytes: &[u8]| file_name(&digest(bytes));
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        let mut files = BestFiles::open(folder.path(), None).unwrap();
        files.keep(b"first").unwrap();
        files.keep(b"second").unwrap();
        assert_eq!(names(folder.path()), [name(b"second")]);
        files.saved();
        // Neither is named by the save, which is that of the second.
        files.keep(b"third").unwrap();
        files.keep(b"fourth").unwrap();
        assert_eq!(names(folder.path()), sorted(vec![name(b"second"), name(b"fourth")]));
        // Killed here, the training goes on from the save.
        let mut files = BestFiles::open(folder.path(), Some(&digest(b"second"))).unwrap();
        assert_eq!(names(folder.path()), [name(b"second")]);
        files.keep(b"other").unwrap();
        files.saved();
        assert_eq!(names(folder.path()), [name(b"other")]);
        files.publish(&folder.path().join("best.safetensors")).unwrap();
        assert_eq!(std::fs::read(folder.path().join("best.safetensors")).unwrap(), b"other");
        remove_others(folder.path(), None);
        assert_eq!(names(folder.path()), ["best.safetensors"]);
    }

    #[test]
    fn a_best_checkpoint_that_is_not_the_saves_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = BestFiles::open(folder.path(), None).unwrap();
        let named = files.keep(b"best").unwrap();
        std::fs::write(folder.path().join(file_name(&named)), b"another").unwrap();
        let error = format!("{:#}", BestFiles::open(folder.path(), Some(&named)).unwrap_err());
        assert!(error.contains("has changed"), "{error}");
        std::fs::remove_file(folder.path().join(file_name(&named))).unwrap();
        let error = format!("{:#}", BestFiles::open(folder.path(), Some(&named)).unwrap_err());
        assert!(error.contains("cannot read"), "{error}");
        assert!(BestFiles::open(folder.path(), Some("../../elsewhere")).is_err());
    }
}
