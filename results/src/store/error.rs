//! Why a table could not be stored or read.

use std::io;
use std::path::{Path, PathBuf};

use polars::prelude::PolarsError;

/// The result of storing or reading a table.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a table could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused to write.
    #[error(
        "cannot write `{}`: check that its folder exists, is writable and has space left",
        file.display()
    )]
    Write {
        /// The file.
        file: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// The file system refused to read.
    #[error("cannot read `{}`: check that it exists and is readable", file.display())]
    Read {
        /// The file or folder.
        file: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// The file is cut short, damaged, or not a table of this program.
    #[error("`{}` is not a table of results: {reason}; delete it and run again to recreate it", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

pub(super) fn damaged(file: &Path, reason: impl ToString) -> Error {
    Error::Damaged {
        file: file.to_path_buf(),
        reason: reason.to_string(),
    }
}

pub(super) fn unwritable(file: &Path, error: PolarsError) -> Error {
    Error::Write {
        file: file.to_path_buf(),
        source: match error {
            PolarsError::IO { error, .. } => io::Error::new(error.kind(), error.to_string()),
            other => io::Error::other(other.to_string()),
        },
    }
}
