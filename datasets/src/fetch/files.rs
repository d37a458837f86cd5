//! Renaming and removing files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::DataError;

/// Renames a file that the user may have put there, so that it is kept.
pub(super) fn set_aside(path: &Path) -> Result<(), DataError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".replaced");
    match fs::rename(path, &name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write_error(&PathBuf::from(name))(error)),
        _ => Ok(()),
    }
}

pub(super) fn discard(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a rename durable where the platform can.
pub(super) fn sync_folder(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

pub(super) fn write_error(file: &Path) -> impl Fn(io::Error) -> DataError + use<> {
    let file = file.to_path_buf();
    move |source| DataError::Write {
        file: file.clone(),
        source,
    }
}
