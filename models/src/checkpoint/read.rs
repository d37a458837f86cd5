//! Recognises the format of a file and reads it.

use std::path::Path;

use super::choose::{self, Choice, Names, Undecided, Wanted};
use super::contents::{Checkpoint, Format};
use super::error::CheckpointError;
use super::{archive, dictionary, legacy, npz, safe};
use crate::network::Network;

impl Checkpoint {
    /// Reads a file. Its first bytes determine the format, not its name.
    ///
    /// # Errors
    /// The file is missing, truncated, damaged, of another format, or holds several dictionaries.
    pub fn read(file: &Path) -> Result<Self, CheckpointError> {
        Self::read_choosing(file, choose_without_network)
    }

    /// Reads what a file holds of a network. The names of its entries decide which dictionary that is and which prefix
    /// they have. `entry` picks one of several copies of the network by its label, such as `ema`.
    ///
    /// # Errors
    /// As [`Checkpoint::read`]; [`CheckpointError::Several`] if the file holds the network more than once and `entry`
    /// does not decide.
    pub fn read_for(file: &Path, network: &Network, entry: Option<&str>) -> Result<Self, CheckpointError> {
        let wanted = Wanted::of(network);
        Self::read_choosing(file, |names| choose::for_network(names, &wanted, entry))
    }

    fn read_choosing(file: &Path, choose: impl Choose) -> Result<Self, CheckpointError> {
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
        Self::parse_choosing(&bytes, choose).map_err(|undecided| {
            let file = file.to_path_buf();
            match undecided {
                Undecided::Problem(problem) => CheckpointError::Content { file, problem },
                Undecided::Several(problem, labels) => CheckpointError::Several { file, problem, labels },
            }
        })
    }

    /// [`Checkpoint::read`] from bytes; the error says what is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        Self::parse_choosing(bytes, choose_without_network).map_err(Undecided::problem)
    }

    /// [`Checkpoint::read_for`] from bytes.
    pub fn parse_for(bytes: &[u8], network: &Network, entry: Option<&str>) -> Result<Self, String> {
        let wanted = Wanted::of(network);
        Self::parse_choosing(bytes, |names| choose::for_network(names, &wanted, entry)).map_err(Undecided::problem)
    }

    fn parse_choosing(bytes: &[u8], choose: impl Choose) -> Result<Self, Undecided> {
        let (format, pickled) = match bytes {
            [] => return Err("it is empty".to_string().into()),
            _ if bytes.starts_with(b"PK") => {
                let entries = archive::entries(bytes)?;
                if npz::is(&entries) {
                    return npz::load(&entries)?.chosen(choose);
                }
                (Format::Zip, archive::load(&entries)?)
            }
            _ if legacy::begins(bytes) => (Format::Legacy, legacy::load(bytes)?),
            _ if bytes.get(8) == Some(&b'{') => return safe::load(bytes)?.chosen(choose),
            [0x80, ..] => {
                let problem = "it is a plain pickle, not written by `torch.save`; save `model.state_dict()` with it";
                return Err(problem.to_string().into());
            }
            _ => {
                let problem =
                    "it is neither safetensors nor written by `torch.save`; it may be damaged or something else";
                return Err(problem.to_string().into());
            }
        };
        let dictionaries = dictionary::all(&pickled.pickle)?;
        let names: Vec<Names<'_>> = dictionaries.iter().map(dictionary::Dictionary::names).collect();
        let choice = choose(&names)?;
        Ok(dictionaries[choice.at].contents(format, &pickled, choice, bytes.len())?)
    }

    /// What is chosen of a file that is one dictionary.
    fn chosen(mut self, choose: impl Choose) -> Result<Self, Undecided> {
        let tensors = std::mem::take(&mut self.tensors);
        let names = [Names {
            path: Vec::new(),
            tensors: tensors.keys().map(String::as_str).collect(),
        }];
        let Choice {
            prefix, apart, owned, ..
        } = choose(&names)?;
        self.prefix = prefix;
        self.apart = apart;
        for (name, tensor) in tensors.iter().filter(|(name, _)| !owned.contains(name.as_str())) {
            match name.strip_prefix(&self.prefix[..]) {
                Some(rest) => self.tensors.insert(rest.to_string(), tensor.clone()),
                None => self.beside.insert(name.clone(), tensor.clone()),
            };
        }
        Ok(self)
    }
}

/// Chooses among the dictionaries of a file.
trait Choose: for<'a> FnOnce(&[Names<'a>]) -> Result<Choice<'a>, Undecided> {}

impl<F: for<'a> FnOnce(&[Names<'a>]) -> Result<Choice<'a>, Undecided>> Choose for F {}

fn choose_without_network<'a>(names: &[Names<'a>]) -> Result<Choice<'a>, Undecided> {
    Ok(choose::for_nothing(names)?)
}
