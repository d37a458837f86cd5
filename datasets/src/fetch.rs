//! Downloads data sets: to `NAME.part`, resumed after an interruption, verified, and only then renamed.

mod download;
mod files;
mod mirrors;
mod progress;
mod unpack;

use std::fs::{self, File, TryLockError};
use std::path::Path;

use self::download::{Origin, obtain};
use self::files::write_error;
pub use self::mirrors::Mirrors;
pub use self::progress::Progress;
use self::unpack::unpack;
use crate::catalogue::entry;
use crate::entry::{Member, Storage};
use crate::{DataError, Entry, Verify};

/// Downloads a data set into the folder of all data sets ([`crate::root`]), unless it is there.
///
/// A file with the official checksum is kept; any other file of the same name is renamed to
/// `NAME.replaced`. An archive that is in `root` already is unpacked without asking a mirror.
/// `NAME.part` is what an interrupted download left; the next one resumes it.
///
/// # Errors
/// [`DataError::UnknownName`]; [`DataError::Download`] with what each mirror did; [`DataError::Write`].
/// No file under its final name is ever incomplete or wrong.
pub fn fetch(
    name: &str,
    root: &Path,
    mirrors: &Mirrors,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), DataError> {
    fetch_entry(entry(name)?, root, mirrors, progress)
}

fn fetch_entry(
    entry: &Entry,
    root: &Path,
    mirrors: &Mirrors,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), DataError> {
    let is_here = || entry.read(root, Verify::Yes).is_ok();
    let present = Progress::Present { file: entry.name };
    if is_here() {
        progress(present);
        return Ok(());
    }
    fs::create_dir_all(root).map_err(write_error(root))?;
    let _lock = lock(root, entry.name, progress)?;
    if is_here() {
        progress(present);
        return Ok(());
    }
    match &entry.storage {
        Storage::Embedded(_) => {}
        Storage::Idx(files) => {
            let folder = root.join(entry.name);
            fs::create_dir_all(&folder).map_err(write_error(&folder))?;
            for file in files {
                let urls = mirrors.urls(entry, &format!("{}/{}", entry.name, file.packed.name));
                obtain(&file.packed, &folder, &urls, mirrors, progress)?;
            }
        }
        Storage::Cifar {
            archive,
            folder,
            train,
            test,
            ..
        } => {
            let origin = obtain(archive, root, &mirrors.urls(entry, archive.name), mirrors, progress)?;
            progress(Progress::Unpacking { file: archive.name });
            let members: Vec<Member> = train.iter().chain(*test).copied().collect();
            unpack(entry, archive, folder, &members, root)?;
            if origin == Origin::Downloaded {
                // Everything needed is unpacked, with a record of its origin.
                let _ = fs::remove_file(root.join(archive.name));
            }
        }
    }
    Ok(())
}

/// Holds the right to write this data set until dropped.
fn lock(root: &Path, name: &str, progress: &mut dyn FnMut(Progress<'_>)) -> Result<File, DataError> {
    let path = root.join(format!(".{name}.lock"));
    let file = File::create(&path).map_err(write_error(&path))?;
    // On a file system without locks, the user must avoid two downloads at once; the checksum still rejects wrong
    // files.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        progress(Progress::Waiting);
        let _ = file.lock();
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
