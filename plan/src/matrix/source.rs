//! The text of a matrix, and mistakes at a place of it.

use std::fmt;
use std::io::Read;
use std::path::{Path as FilePath, PathBuf};

use crate::serde_hint::with_suggestion;
use crate::yaml::{self, Path, Place, SyntaxError, invisible};

/// A matrix file.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
}

/// A mistake in a matrix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Line and column, if the mistake has a place.
    pub place: Option<Place>,
    /// The key at fault, such as `defenses[1].lambda`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// Why a matrix cannot be used.
#[derive(Debug)]
pub enum MatrixError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system reported, or what the file is instead.
        reason: String,
    },
    /// Its text has mistakes, at least one, in the order of the text.
    Mistakes {
        /// The file.
        file: PathBuf,
        /// All that were found.
        mistakes: Vec<Mistake>,
    },
}

/// A larger file is no matrix.
const LARGEST: u64 = 16 << 20;
/// How many mistakes are printed.
const MOST_PRINTED: usize = 20;

impl MatrixError {
    /// Mistakes of one file, each once, in the order of its text.
    pub(crate) fn of(file: &FilePath, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort();
        mistakes.dedup();
        Self::Mistakes {
            file: file.to_path_buf(),
            mistakes,
        }
    }
}

impl fmt::Display for MatrixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, mistakes) = match self {
            Self::Unreadable { file, reason } => {
                return write!(f, "cannot read the matrix {}: {reason}", file.display());
            }
            Self::Mistakes { file, mistakes } => (file, mistakes),
        };
        for (i, mistake) in mistakes.iter().take(MOST_PRINTED).enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", file.display())?;
            if let Some(Place { line, column }) = mistake.place {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
            if !mistake.path.is_empty() {
                write!(f, "`{}`: ", mistake.path)?;
            }
            f.write_str(&mistake.message)?;
        }
        if mistakes.len() > MOST_PRINTED {
            write!(f, "\n… and {} more mistakes", mistakes.len() - MOST_PRINTED)?;
        }
        Ok(())
    }
}

impl std::error::Error for MatrixError {}

impl Source {
    /// The text of a file. A byte order mark at its start is left out.
    ///
    /// # Errors
    /// The file cannot be read, is larger than a matrix can be, or is not text in UTF-8.
    pub fn read(file: &FilePath) -> Result<Self, MatrixError> {
        let unreadable = |reason: String| MatrixError::Unreadable {
            file: file.to_path_buf(),
            reason,
        };
        // Not more than that, even of a device that never ends.
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(file).map_err(|error| unreadable(error.to_string()))?;
        opened
            .take(LARGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(error.to_string()))?;
        if bytes.len() as u64 > LARGEST {
            return Err(unreadable(format!(
                "more than {} MiB; that is no matrix",
                LARGEST >> 20
            )));
        }
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Err(unreadable("its text is in UTF-16; save it in UTF-8".to_string()));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let before = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count();
            unreadable(format!("line {line} is not text in UTF-8; save the file in UTF-8"))
        })?;
        Ok(Self::new(file, &text))
    }

    /// The text of a file. A byte order mark at its start is left out.
    pub fn new(file: &FilePath, text: &str) -> Self {
        Self {
            file: file.to_path_buf(),
            text: text.strip_prefix('\u{feff}').unwrap_or(text).to_string(),
        }
    }

    /// A mistake at a path of this file.
    pub(crate) fn mistake(&self, path: &Path, message: impl Into<String>) -> Mistake {
        let path_text = path.to_string();
        let mut message = with_suggestion(&message.into());
        if let Some((_, mark)) = invisible(&path_text) {
            message = format!(
                "{}; it holds the invisible character U+{:04X}",
                message,
                u32::from(mark)
            );
        }
        Mistake {
            place: yaml::locate(&self.text, path),
            path: path_text,
            message,
        }
    }

    /// An error with a single mistake.
    pub(crate) fn error(&self, path: &Path, message: impl Into<String>) -> MatrixError {
        MatrixError::of(&self.file, vec![self.mistake(path, message)])
    }

    /// The text is not YAML.
    pub(super) fn syntax_error(&self, error: SyntaxError) -> MatrixError {
        let mistake = Mistake {
            place: error.place,
            path: String::new(),
            message: error.message,
        };
        MatrixError::of(&self.file, vec![mistake])
    }
}
