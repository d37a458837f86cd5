use std::path::{Path, PathBuf};

use crate::{DataError, Dataset, Verify, cifar, cifar10, cifar100, digits, fashion_mnist, idx, mnist};

/// What is known about a data set without reading it.
#[derive(Debug)]
pub struct Entry {
    /// Its name in a matrix.
    pub name: &'static str,
    /// One line for a list.
    pub summary: &'static str,
    /// Who made it, where it is published.
    pub source: &'static str,
    /// Under which terms.
    pub licence: &'static str,
    /// `[C, H, W]`.
    pub image: [usize; 3],
    /// What each label means.
    pub classes: &'static [&'static str],
    /// How many images are for training.
    pub train: usize,
    /// How many images are for testing.
    pub test: usize,
    /// Whose training and attack settings suit it.
    pub family: Family,
    /// Folders of the official files, tried in order; a file's name is added.
    pub(crate) mirrors: &'static [&'static str],
    pub(crate) storage: Storage,
}

/// Papers print one protocol for grey digits and another for small colour photographs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// One channel; large radii, such as 0.3.
    Mnist,
    /// Three channels; small radii, such as 8/255.
    Cifar,
}

/// How a data set lies on disk.
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

static ENTRIES: [Entry; 5] = [
    digits::ENTRY,
    mnist::ENTRY,
    fashion_mnist::ENTRY,
    cifar10::ENTRY,
    cifar100::ENTRY,
];

/// Every data set, smallest first.
pub fn entries() -> &'static [Entry] {
    &ENTRIES
}

/// The data set of this name.
///
/// # Errors
/// [`DataError::UnknownName`], with the nearest name if one is near.
pub fn entry(name: &str) -> Result<&'static Entry, DataError> {
    ENTRIES.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let names = ENTRIES.iter().map(|entry| entry.name);
        let lower = name.to_lowercase();
        let nearest = names
            .clone()
            .max_by(|a, b| strsim::jaro_winkler(a, &lower).total_cmp(&strsim::jaro_winkler(b, &lower)))
            .filter(|nearest| strsim::jaro_winkler(nearest, &lower) > 0.7);
        DataError::UnknownName {
            name: name.to_string(),
            hint: match nearest {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("there are {}", names.collect::<Vec<_>>().join(", ")),
            },
        }
    })
}

/// Reads a data set from the folder of all data sets ([`crate::root`]).
///
/// # Errors
/// An unknown name, files missing, unreadable, damaged, or (under [`Verify::Yes`]) not official.
pub fn load(name: &str, root: &Path, verify: Verify) -> Result<Dataset, DataError> {
    entry(name)?.read(root, verify)
}

/// The data set that has a file with this MD5.
pub(crate) fn owner(md5: &str) -> Option<&'static str> {
    let has = |entry: &&Entry| match &entry.storage {
        Storage::Embedded(_) => false,
        Storage::Idx(files) => (files.iter()).any(|file| file.packed.md5 == md5 || file.unpacked == Some(md5)),
        Storage::Cifar { train, test, .. } => train.iter().chain(*test).any(|member| member.md5 == Some(md5)),
    };
    ENTRIES.iter().find(has).map(|entry| entry.name)
}

impl Entry {
    pub(crate) fn read(&self, root: &Path, verify: Verify) -> Result<Dataset, DataError> {
        let ([train, test], verified) = match &self.storage {
            Storage::Embedded(content) => (digits::read(self, content)?, true),
            Storage::Idx(files) => idx::read(self, files, root, verify)?,
            Storage::Cifar { .. } => cifar::read(self, root, verify)?,
        };
        let classes = self.classes.iter().map(|class| class.to_string()).collect();
        let dataset = Dataset::new(self.name, classes, train, test)?;
        Ok(Dataset { verified, ..dataset })
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_consistent() {
        for it in entries() {
            assert_eq!(entry(it.name).unwrap().name, it.name);
            let unique: std::collections::BTreeSet<_> = it.classes.iter().collect();
            assert_eq!(unique.len(), it.classes.len(), "{}", it.name);
            assert_eq!(it.family == Family::Cifar, it.image[0] == 3, "{}", it.name);
            let remotes: Vec<Remote> = match &it.storage {
                Storage::Embedded(_) => Vec::new(),
                Storage::Idx(files) => files.iter().map(|file| file.packed).collect(),
                Storage::Cifar {
                    archive,
                    train,
                    test,
                    labels,
                    ..
                } => {
                    assert_eq!(labels.last(), Some(&it.classes.len()));
                    let record = labels.len() + it.image.iter().product::<usize>();
                    for (members, count) in [(train, it.train), (test, it.test)] {
                        let bytes: u64 = members.iter().map(|member| member.size).sum();
                        assert_eq!(bytes, (count * record) as u64);
                    }
                    vec![*archive]
                }
            };
            assert_eq!(remotes.is_empty(), it.mirrors.is_empty());
            for remote in remotes {
                assert!(remote.name.ends_with(".gz") && remote.md5.len() == 32);
            }
        }
    }

    #[test]
    fn a_checksum_tells_whose_file_it_is() {
        assert_eq!(owner("ec29112dd5afa0611ce80d1b7f02629c"), Some("mnist"));
        assert_eq!(owner("27ae3e4e09519cfbb04c329615203637"), Some("mnist"));
        assert_eq!(owner("bb300cfdad3c16e7a12a480ee83cd310"), Some("fashion-mnist"));
        assert_eq!(owner("803d5f7f4d78ea53de84dbe85f74fb6d"), Some("cifar10"));
        assert_eq!(owner("900150983cd24fb0d6963f7d28e17f72"), None);
    }

    #[test]
    fn a_wrong_name_gets_a_suggestion() {
        let error = |name| entry(name).unwrap_err().to_string();
        assert!(error("cifar-10").ends_with("did you mean `cifar10`?"));
        assert!(error("CIFAR100").ends_with("did you mean `cifar100`?"));
        assert!(error("fashion").ends_with("did you mean `fashion-mnist`?"));
        assert!(error("mnst").ends_with("did you mean `mnist`?"));
        assert!(error("zzz").ends_with("there are digits, mnist, fashion-mnist, cifar10, cifar100"));
    }
}
