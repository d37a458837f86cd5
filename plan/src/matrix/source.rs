//! The text of a matrix, and mistakes at a place of it.

use std::path::{Path as FilePath, PathBuf};

use crate::suggest::with_suggestion;
use crate::yaml::{self, Path, Place, SyntaxError};

/// A matrix file.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
}

/// A mistake in a matrix, or a matrix that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The file cannot be read.
    #[error("cannot read the matrix {}: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// A mistake in its text.
    #[error("{}{}: {}{message}", file.display(), place_suffix(*place), at_prefix(path))]
    Mistake {
        /// The file.
        file: PathBuf,
        /// Where in the file, if the mistake has a place.
        place: Option<Place>,
        /// The key at fault, such as `defenses[1].lambda`.
        path: String,
        /// What is wrong with it.
        message: String,
    },
}

impl MatrixError {
    pub(super) fn unreadable(file: &FilePath, reason: std::io::Error) -> Self {
        Self::Unreadable {
            file: file.to_path_buf(),
            reason,
        }
    }
}

fn place_suffix(place: Option<Place>) -> String {
    place.map_or_else(String::new, |Place { line, column }| format!(":{line}:{column}"))
}

fn at_prefix(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("`{path}`: ")
    }
}

impl Source {
    /// An error at a path of this file.
    pub fn error(&self, path: &Path, message: impl Into<String>) -> MatrixError {
        MatrixError::Mistake {
            file: self.file.clone(),
            place: yaml::locate(&self.text, path),
            path: path.to_string(),
            message: with_suggestion(&message.into()),
        }
    }

    /// The text is not YAML.
    pub(super) fn syntax_error(&self, error: SyntaxError) -> MatrixError {
        MatrixError::Mistake {
            file: self.file.clone(),
            place: error.place,
            path: String::new(),
            message: error.message,
        }
    }
}
