//! Reads a data set from disk.

use std::path::Path;

use crate::catalogue::entry;
use crate::entry::{Entry, Storage};
use crate::{DataError, Dataset, Verify, cifar, digits, idx};

/// Reads a data set from the folder of all data sets ([`crate::root`]).
///
/// # Errors
/// An unknown name, files missing, unreadable, damaged, or (under [`Verify::Yes`]) not official.
pub fn load(name: &str, root: &Path, verify: Verify) -> Result<Dataset, DataError> {
    entry(name)?.read(root, verify)
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
}
