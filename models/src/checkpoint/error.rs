//! Why a file is not a checkpoint.

use std::path::PathBuf;

/// Why a file could not be read as parameters.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system reported an error.
    #[error("cannot read the checkpoint `{}`", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("checkpoint `{}`: {problem}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, and what helps.
        problem: String,
    },
    /// The file holds the network more than once.
    #[error("checkpoint `{}`: {problem}", file.display())]
    Several {
        /// The file.
        file: PathBuf,
        /// Which copies there are.
        problem: String,
        /// Their labels, each of which picks one.
        labels: Vec<String>,
    },
}
