//! What can be wrong with data.

use std::io;
use std::path::PathBuf;

/// What can be wrong with data, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// No data set has this name.
    #[error("no data set is called `{name}`; {hint}")]
    UnknownName {
        /// The name asked for.
        name: String,
        /// The nearest name, or all names.
        hint: String,
    },
    /// No data folder was given and the user has no home folder.
    #[error("there is no cache folder for this user; name the data folder with --data-dir or RAMPART_DATA_DIR")]
    NoRoot,
    /// Files are absent.
    #[error("{name}: missing {files} (looked in {folders}); `rampart fetch {name}` downloads the data set")]
    Missing {
        /// The data set.
        name: &'static str,
        /// The missing files.
        files: String,
        /// The folders searched.
        folders: String,
    },
    /// A folder has the files of the Python archive.
    #[error(
        "`{}` holds {name} as the pickles of its Python archive; the binary archive is read: `rampart fetch {name}` downloads \
         it, and docs/pytorch.md converts the pickles",
        folder.display()
    )]
    Python {
        /// The data set.
        name: &'static str,
        /// The folder.
        folder: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write `{}`", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what its format demands.
    #[error("`{}` is damaged at {place}: {problem}; `rampart fetch {name}` replaces it", file.display())]
    Format {
        /// The data set.
        name: &'static str,
        /// The file.
        file: PathBuf,
        /// Byte, line or part of the file.
        place: String,
        /// What is wrong there.
        problem: String,
    },
    /// A label that is not a class.
    #[error("{place}: image {index} has label {label}, but there are only classes 0 to {}", classes.saturating_sub(1))]
    Label {
        /// The file or split.
        place: String,
        /// The image, counted from 0 in that file or split.
        index: usize,
        /// Its label.
        label: u32,
        /// The number of classes.
        classes: usize,
    },
    /// Images and labels, or two splits, do not belong together.
    #[error("{place}: {problem}")]
    Shape {
        /// The file or split.
        place: String,
        /// What does not fit.
        problem: String,
    },
    /// The content is not what the publisher offers.
    #[error(
        "`{}` is not proven to be the official file: {reason}; `rampart fetch {name}` gets the official one, \
         `verify: false` in the matrix uses this one and marks the results as unverified data",
        file.display()
    )]
    NotOfficial {
        /// The data set.
        name: &'static str,
        /// The file.
        file: PathBuf,
        /// Which checksum differs.
        reason: String,
    },
    /// No mirror gave the file.
    #[error(
        "cannot download `{file}`: {}; try again, put the official file into `{}` yourself, \
         or name another mirror in RAMPART_MIRROR",
        tried.join("; "),
        folder.display()
    )]
    Download {
        /// The file.
        file: String,
        /// Where it belongs.
        folder: PathBuf,
        /// Each address with what happened there.
        tried: Vec<String>,
    },
    /// More examples are to be held out than there are.
    #[error("cannot hold out {asked} of {available} training images; some must remain: hold out fewer")]
    HoldOut {
        /// How many were asked for.
        asked: usize,
        /// How many there are.
        available: usize,
    },
    /// An augmentation that does not exist or does not fit the image.
    #[error("augmentation {0}")]
    Augment(String),
}
