//! Files that appear complete or not at all, and JSON that carries a digest of itself.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Component, Path};

use anyhow::{Context, Result};
use results::atomic::{Force, force_all, force_folder, spend, write_atomically};
use results::seal::json as sealed;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a file complete or not at all, and forces it and its name to disk.
///
/// # Errors
/// If the file system reports one; the message names the file.
pub fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(file, Force::Now, |mut part| part.write_all(bytes)).with_context(|| refused(file))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    spend(|| force_folder(folder)).with_context(|| refused(folder))
}

/// As [`write()`], for one of many files in a folder that are forced to disk together.
///
/// # Errors
/// If the file system reports one; the message names the file.
pub fn write_part(file: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(file, Force::Later, |mut part| part.write_all(bytes)).with_context(|| refused(file))
}

/// Forces a folder and every file in it to disk.
///
/// # Errors
/// If the file system reports one; the message names the file.
pub fn force(folder: &Path) -> Result<()> {
    spend(|| force_all(folder)).with_context(|| refused(folder))
}

/// The message of an error of a write. What the system said follows it.
pub fn refused(place: &Path) -> String {
    format!("cannot write {}", place.display())
}

/// Writes an object as indented JSON with a last entry `blake3`, the digest of all bytes before that entry.
///
/// # Errors
/// If the file system reports one; the message names the file.
pub fn write_sealed(file: &Path, value: &impl Serialize) -> Result<()> {
    write(file, sealed::to_text(value)?.as_bytes())
}

/// Reads what [`write_sealed`] wrote; `None` if there is no such file.
///
/// # Errors
/// If any byte is not the one that was written.
pub fn read_sealed<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => String::new(),
        other => other.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let parse = || -> Result<T> {
        let read = sealed::from_text(&text).context("its bytes are not those that were written")?;
        Ok(read?)
    };
    let value = parse().with_context(|| {
        format!(
            "{} is damaged; delete it and run again to write it again",
            file.display()
        )
    });
    Ok(Some(value?))
}

/// Writes plain data as indented JSON, for files that other programs read or that live a moment.
///
/// # Errors
/// If the file system reports one; the message names the file.
pub fn write_json(file: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write(file, text.as_bytes())
}

/// Reads JSON that has no digest; `None` if there is no such file.
///
/// # Errors
/// If it cannot be read as this type.
pub fn read_json<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let value = serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is damaged; delete it and run again to write it again",
            file.display()
        )
    })?;
    Ok(Some(value))
}

/// Removes the temporary files that killed processes left in a folder.
///
/// # Errors
/// The folder cannot be read, or a file cannot be removed.
pub fn remove_temporary(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    results::atomic::clean(folder).with_context(|| format!("cannot clean up {}", folder.display()))
}

/// Whether a name out of a file is that of something in a folder: it leads neither up nor anywhere else.
pub fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let only = parts.next().filter(|_| parts.next().is_none());
    // A trailing separator or `./` is no part, so the part must be the whole name.
    matches!(only, Some(Component::Normal(part)) if part == name) && !name.contains(['\\', '\0'])
}

/// Whether the file system is at fault: no space, no permission, no device. On another disk the write would succeed.
pub fn is_refused(error: &anyhow::Error) -> bool {
    let refused = |cause: &std::io::Error| {
        matches!(
            cause.kind(),
            ErrorKind::StorageFull
                | ErrorKind::QuotaExceeded
                | ErrorKind::FileTooLarge
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::PermissionDenied
                | ErrorKind::StaleNetworkFileHandle
        ) || cause.raw_os_error() == Some(EIO)
    };
    let mut causes = error.chain();
    causes.any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(refused))
}

/// The disk itself failed.
const EIO: i32 = 5;

/// Makes a folder and its parents.
///
/// # Errors
/// If the file system reports one; the message names the file.
pub fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_plain_name_leads_nowhere_else() {
        for name in ["best.safetensors", "0a1b-natural", "...", "a b"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["", ".", "..", "../a", "a/b", "a/", "./a", "/etc/passwd", "a\\b", "a\0"] {
            assert!(!is_plain(name), "{name:?}");
        }
    }

    #[test]
    fn a_damaged_sealed_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("it.json");
        let value = BTreeMap::from([
            ("a".to_string(), "x".to_string()),
            ("blake3".to_string(), "y".to_string()),
        ]);
        write_sealed(&file, &value).unwrap();
        assert_eq!(read_sealed::<BTreeMap<String, String>>(&file).unwrap(), Some(value));
        let mut bytes = fs::read(&file).unwrap();
        bytes[5] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let error = read_sealed::<BTreeMap<String, String>>(&file).unwrap_err().to_string();
        assert!(error.contains("it.json is damaged; delete it"), "{error}");
        assert_eq!(
            read_sealed::<BTreeMap<String, String>>(&folder.path().join("none")).unwrap(),
            None
        );
    }

    #[test]
    fn file_system_errors_are_distinguished_from_others() {
        let full = anyhow::Error::from(std::io::Error::from(ErrorKind::StorageFull)).context("cannot write it");
        assert!(is_refused(&full));
        assert!(!is_refused(&anyhow::anyhow!("cannot write it")));
        assert!(!is_refused(&std::io::Error::from(ErrorKind::NotFound).into()));
    }
}
