//! Small files in folders that several hosts share.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

/// The names in a folder; none if there is no such folder.
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let unreadable = || format!("cannot read {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(unreadable)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.with_context(unreadable)?.file_name().into_string().ok());
    }
    Ok(names)
}

/// A temporary file that others may read once it has its name.
pub(super) fn shared_temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Removes the file of a lease or a process. If it stays, the next process to look finds it dead.
pub(super) fn remove(file: &Path) {
    let _ = fs::remove_file(file);
}

/// Removes a folder. If it stays, it wastes space and nothing else.
pub(super) fn remove_folder(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
}
