//! Whether the files of a data set are the official ones.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checksum::{hex, md5_hex};
use crate::{DataError, catalogue};

/// Whether files must be proven to be the official ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Anything else is an error.
    #[default]
    Yes,
    /// Any well-formed file is read; [`crate::Dataset::verified`] says whether it is official.
    No,
}

impl From<bool> for Verify {
    fn from(verify: bool) -> Self {
        if verify { Self::Yes } else { Self::No }
    }
}

/// The name of a [`Record`], beside the files that it is about.
pub(crate) const RECORD: &str = "rampart-verified.json";

/// What was unpacked from an archive whose checksum was official.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The archive.
    pub(crate) archive: String,
    /// Its MD5.
    pub(crate) md5: String,
    /// SHA-256 of each file.
    pub(crate) files: BTreeMap<String, String>,
}

impl Record {
    /// The record in a folder; `None` if it is absent, unreadable or about another archive.
    pub(crate) fn read(folder: &Path, archive_md5: &str) -> Option<Self> {
        let text = std::fs::read(folder.join(RECORD)).ok()?;
        let record: Self = serde_json::from_slice(&text).ok()?;
        (record.md5 == archive_md5).then_some(record)
    }

    /// Whether the record has the checksum of this content of this file.
    pub(crate) fn covers(&self, file: &str, content: &[u8]) -> bool {
        self.files
            .get(file)
            .is_some_and(|expected| *expected == hex(&Sha256::digest(content)))
    }
}

/// Compares with the official MD5. Returns whether they agree.
///
/// # Errors
/// [`DataError::NotOfficial`] if they do not, or if none is known, and `verify` insists;
/// [`DataError::Format`] if it is an official file of another data set.
pub(crate) fn check(
    name: &'static str,
    file: &Path,
    content: &[u8],
    official: Option<&str>,
    verify: Verify,
) -> Result<bool, DataError> {
    let found = md5_hex(content);
    let reason = match official {
        Some(official) if found == official => return Ok(true),
        Some(official) => format!("its md5 is {found} instead of {official}"),
        None => "no official checksum is known for it in this form".to_string(),
    };
    // MNIST and its successors share their file names, so one is easily taken for another.
    if let Some(owner) = catalogue::owner(&found).filter(|owner| *owner != name) {
        return Err(DataError::Format {
            name,
            file: file.to_path_buf(),
            place: "its content".into(),
            problem: format!("it is the file of {owner}"),
        });
    }
    match verify {
        Verify::No => Ok(false),
        Verify::Yes => Err(DataError::NotOfficial {
            name,
            file: file.to_path_buf(),
            reason,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_known_ones() {
        assert_eq!(md5_hex(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            hex(&Sha256::digest(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn another_checksum_is_refused_with_the_remedy() {
        let file = Path::new("x.gz");
        assert!(
            check(
                "mnist",
                file,
                b"abc",
                Some("900150983cd24fb0d6963f7d28e17f72"),
                Verify::Yes
            )
            .unwrap()
        );
        assert!(
            !check(
                "mnist",
                file,
                b"abd",
                Some("900150983cd24fb0d6963f7d28e17f72"),
                Verify::No
            )
            .unwrap()
        );
        let error = check(
            "mnist",
            file,
            b"abd",
            Some("900150983cd24fb0d6963f7d28e17f72"),
            Verify::Yes,
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains("`x.gz`") && error.contains("instead of 9001"), "{error}");
        assert!(
            error.contains("verify: false") && error.contains("rampart fetch mnist"),
            "{error}"
        );
        assert!(check("mnist", file, b"abc", None, Verify::Yes).is_err());
    }

    #[test]
    fn a_record_about_something_else_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Record::read(folder.path(), "aa").is_none());
        for text in ["", "{}", r#"{"archive":"x","md5":"bb","files":{}}"#] {
            std::fs::write(folder.path().join(RECORD), text).unwrap();
            assert!(Record::read(folder.path(), "aa").is_none(), "{text}");
        }
        std::fs::write(
            folder.path().join(RECORD),
            r#"{"archive":"x","md5":"aa","files":{"f":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}}"#,
        )
        .unwrap();
        let record = Record::read(folder.path(), "aa").unwrap();
        assert!(record.covers("f", b"abc"));
        assert!(!record.covers("f", b"abd") && !record.covers("g", b"abc"));
    }
}
