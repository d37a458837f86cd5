//! Recognises the format of a file and reads it.

use std::path::Path;

use super::contents::{Checkpoint, Format};
use super::error::CheckpointError;
use super::{archive, dictionary, legacy, safe};

impl Checkpoint {
    /// Reads a file. Its first bytes determine the format, not its name.
    ///
    /// # Errors
    /// The file is missing, truncated, damaged, of another format, or requires code to be run.
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

    /// The same from bytes; the error says what is wrong with them.
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

    /// Strips the prefixes of wrappers, where every name has them: `module.` of DataParallel,
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
