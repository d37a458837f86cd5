//! What is known about a data set, and where its files are.

use std::path::{Path, PathBuf};

use crate::DataError;

/// What is known about a data set without reading it.
#[derive(Debug)]
pub struct Entry {
    /// Its name in a matrix.
    pub name: &'static str,
    /// One line for a list.
    pub summary: &'static str,
    /// Who made it, where it is published.
    pub source: &'static str,
    /// Its licence.
    pub licence: &'static str,
    /// `[C, H, W]`.
    pub image: [usize; 3],
    /// The name of each class.
    pub classes: &'static [&'static str],
    /// The number of training images.
    pub train: usize,
    /// The number of test images.
    pub test: usize,
    /// The protocol that papers use on it.
    pub family: Family,
    /// Folders of the official files, tried in order; a file's name is added.
    pub(crate) mirrors: &'static [&'static str],
    pub(crate) storage: Storage,
}

/// Papers use one protocol for grey digits and another for small colour photographs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// One channel; large radii, such as 0.3.
    Mnist,
    /// Three channels; small radii, such as 8/255.
    Cifar,
}

/// How a data set is stored.
#[derive(Debug)]
pub(crate) enum Storage {
    /// In the program.
    Embedded(&'static [u8]),
    /// Four IDX files, with `.gz` or unpacked: training images and labels, test images and labels.
    Idx([IdxFile; 4]),
    /// Unpacked from an archive into a folder; records of labels and pixels.
    Cifar {
        archive: Remote,
        folder: &'static str,
        train: &'static [Member],
        test: &'static [Member],
        /// Classes of each label byte of a record; the last one is the label used.
        labels: &'static [usize],
    },
}

/// A file as its publisher offers it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote {
    pub(crate) name: &'static str,
    pub(crate) size: u64,
    pub(crate) md5: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct IdxFile {
    /// The `.gz` file.
    pub(crate) packed: Remote,
    /// MD5 of what is in it, where known.
    pub(crate) unpacked: Option<&'static str>,
}

/// A file in an archive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) size: u64,
    /// Its MD5, where known.
    pub(crate) md5: Option<&'static str>,
}

impl Entry {
    pub(crate) fn damaged(&self, file: &Path, place: impl Into<String>, problem: impl Into<String>) -> DataError {
        DataError::Format {
            name: self.name,
            file: file.to_path_buf(),
            place: place.into(),
            problem: problem.into(),
        }
    }

    /// Finds each file, under any of its alternative names, in the first folder that has any of them.
    pub(crate) fn locate(&self, folders: &[PathBuf], files: &[Vec<&str>]) -> Result<Vec<PathBuf>, DataError> {
        let find = |folder: &PathBuf, names: &Vec<&str>| {
            let mut paths = names.iter().map(|name| folder.join(name));
            paths.find(|path| path.is_file())
        };
        let mut missing: Vec<&str> = files.iter().map(|names| names[0]).collect();
        for folder in folders {
            let found: Vec<Option<PathBuf>> = files.iter().map(|names| find(folder, names)).collect();
            if found.iter().any(Option::is_some) {
                missing = (files.iter().zip(&found))
                    .filter(|(_, path)| path.is_none())
                    .map(|(names, _)| names[0])
                    .collect();
                if missing.is_empty() {
                    return Ok(found.into_iter().flatten().collect());
                }
                break;
            }
        }
        let folders: Vec<String> = folders.iter().map(|folder| format!("`{}`", folder.display())).collect();
        Err(DataError::Missing {
            name: self.name,
            files: missing.join(", "),
            folders: folders.join(", "),
        })
    }
}

pub(crate) fn read_file(file: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(file).map_err(|source| DataError::Read {
        file: file.to_path_buf(),
        source,
    })
}
