//! Somebody's parameters: state dictionaries out of safetensors and PyTorch's `.pt` and `.pth`.
//!
//! Nothing of a file is ever executed. A pickle is read by a small machine ([`pickle`]) that builds plain
//! values and knows a handful of globals, those of tensors and ordered dictionaries; any other global ends
//! the reading with its name. Nothing is unpacked to disk, no name in a file is taken for a path, and no
//! more memory is taken than a small multiple of the file's size.
//!
//! Candle's own `candle_core::pickle` is not used: it passes over tensors it cannot make sense of without
//! a word, takes whatever global it meets for data, copies a value at each reference to it (so that a small
//! file may ask for exponential memory), finds nested dictionaries only by a key that the caller must know,
//! and reads neither Python integers beyond 32 bits nor the format before PyTorch 1.6. What a checker of
//! other people's files needs most is to notice what it did not understand.

mod archive;
mod decode;
mod dictionary;
mod fit;
mod legacy;
mod pickle;
mod safe;

#[cfg(test)]
mod reference_checkpoints;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

pub use fit::Loaded;

/// A state dictionary as it was found in a file.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// How the file was written.
    pub format: Format,
    /// Keys that led to the dictionary, such as `state_dict`; empty if it was outermost.
    pub within: Vec<String>,
    /// What every name began with and no longer does, such as `module.`.
    pub prefix: String,
    /// The tensors on the CPU: floating point in f32 or f64, anything else in i64.
    pub tensors: BTreeMap<String, Tensor>,
    /// Entries of the dictionary that are not tensors.
    pub other: Vec<String>,
    /// The text entries of a safetensors header.
    pub metadata: BTreeMap<String, String>,
}

/// How a file of parameters was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// safetensors.
    Safetensors,
    /// `torch.save` since PyTorch 1.6.
    Zip,
    /// `torch.save` before that.
    Legacy,
}

/// Why a file could not be read as parameters.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("cannot read the checkpoint `{}`", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the file system said.
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
}

impl Checkpoint {
    /// Reads a file, whatever its name: its first bytes tell the format.
    ///
    /// # Errors
    /// A file that is missing, truncated, damaged, of another format, or that wants code to run.
    pub fn read(file: &Path) -> Result<Self, CheckpointError> {
        let read = |source| CheckpointError::Read {
            file: file.to_path_buf(),
            source,
        };
        // A pipe or device may never end.
        if !std::fs::metadata(file).map_err(read)?.is_file() {
            return Err(CheckpointError::Content {
                file: file.to_path_buf(),
                problem: "it is not a file".into(),
            });
        }
        let bytes = std::fs::read(file).map_err(read)?;
        Self::parse(&bytes).map_err(|problem| CheckpointError::Content {
            file: file.to_path_buf(),
            problem,
        })
    }

    /// The same out of bytes; the error says what is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut checkpoint = match bytes {
            [] => return Err("it is empty".into()),
            _ if bytes.starts_with(b"PK") => dictionary::find(Format::Zip, archive::load(bytes)?, bytes.len())?,
            _ if legacy::begins(bytes) => dictionary::find(Format::Legacy, legacy::load(bytes)?, bytes.len())?,
            _ if bytes.get(8) == Some(&b'{') => safe::load(bytes)?,
            [0x80, ..] => {
                return Err(
                    "it is a plain pickle, not written by `torch.save`; save `model.state_dict()` with it".into(),
                );
            }
            _ => {
                return Err(
                    "it is neither safetensors nor written by `torch.save`; it may be damaged or something else".into(),
                );
            }
        };
        checkpoint.strip_prefixes();
        Ok(checkpoint)
    }

    /// Takes wrappers' prefixes off, where every name has them: `module.` of DataParallel,
    /// `_orig_mod.` of torch.compile, `model.` of this program's own runs.
    fn strip_prefixes(&mut self) {
        const WRAPPERS: &[&str] = &["module.", "_orig_mod.", "model."];
        while let Some(prefix) = WRAPPERS
            .iter()
            .find(|prefix| !self.tensors.is_empty() && self.tensors.keys().all(|name| name.starts_with(**prefix)))
        {
            let names = std::mem::take(&mut self.tensors).into_iter();
            self.tensors = names
                .map(|(name, tensor)| (name[prefix.len()..].to_string(), tensor))
                .collect();
            self.prefix += prefix;
        }
    }
}
