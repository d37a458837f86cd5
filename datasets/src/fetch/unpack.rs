//! Unpacks an archive.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::files::{discard, set_aside, sync_folder, write_error};
use crate::checksum::hex;
use crate::entry::{Member, Remote, read_file};
use crate::verify::{RECORD, Record};
use crate::{DataError, Entry};

/// Unpacks the members into `root/folder`, then writes a [`Record`] beside them. Takes nothing else from
/// the archive, whose checksum the caller has verified.
pub(super) fn unpack(
    entry: &Entry,
    archive: &Remote,
    folder: &str,
    members: &[Member],
    root: &Path,
) -> Result<(), DataError> {
    let path = root.join(archive.name);
    let broken = |problem: String| entry.damaged(&path, "its content", problem);
    let file = File::open(&path).map_err(|source| DataError::Read {
        file: path.clone(),
        source,
    })?;
    let scratch = tempfile::Builder::new().prefix(".unpack-").tempdir_in(root);
    let scratch = scratch.map_err(write_error(root))?;

    let mut files = BTreeMap::new();
    let mut tar = tar::Archive::new(GzDecoder::new(io::BufReader::new(file)));
    for item in tar.entries().map_err(|error| broken(error.to_string()))? {
        let mut item = item.map_err(|error| broken(error.to_string()))?;
        let Some(member) = members.iter().find(|member| is_at(&item, folder, member.name)) else {
            continue;
        };
        if item.size() != member.size || !item.header().entry_type().is_file() || files.contains_key(member.name) {
            let problem = format!("`{}` is not one file of {} bytes", member.name, member.size);
            return Err(broken(problem));
        }
        let out = scratch.path().join(member.name);
        let hash = copy(&mut item, &out).map_err(write_error(&out))?;
        files.insert(member.name.to_string(), hash);
    }
    if let Some(member) = members.iter().find(|member| !files.contains_key(member.name)) {
        return Err(broken(format!("`{folder}/{}` is not in it", member.name)));
    }

    // An old record must not cover new files, nor a new record old files: it is removed first and written last.
    let target = root.join(folder);
    fs::create_dir_all(&target).map_err(write_error(&target))?;
    discard(&target.join(RECORD)).map_err(write_error(&target))?;
    let record = Record {
        archive: archive.name.to_string(),
        md5: archive.md5.to_string(),
        files,
    };
    for member in members {
        let to = target.join(member.name);
        if to.exists() && !record.covers(member.name, &read_file(&to)?) {
            set_aside(&to)?;
        }
        fs::rename(scratch.path().join(member.name), &to).map_err(write_error(&to))?;
    }
    let text = serde_json::to_string_pretty(&record).map_err(|error| write_error(&target)(error.into()))?;
    let written = scratch.path().join(RECORD);
    let to = target.join(RECORD);
    copy(&mut text.as_bytes(), &written).map_err(write_error(&to))?;
    fs::rename(&written, &to).map_err(write_error(&to))?;
    sync_folder(&target);
    Ok(())
}

/// Whether an item's path is `folder/name`, exactly.
fn is_at(item: &tar::Entry<'_, impl Read>, folder: &str, name: &str) -> bool {
    let Ok(path) = item.path() else { return false };
    let mut parts = path.components().filter(|part| *part != Component::CurDir);
    [folder, name].map(|part| Some(Component::Normal(part.as_ref()))) == [parts.next(), parts.next()]
        && parts.next().is_none()
}

/// Writes a file durably. Returns its SHA-256.
fn copy(from: &mut dyn Read, to: &Path) -> io::Result<String> {
    let mut file = File::create(to)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            n => {
                hash.update(&buffer[..n]);
                file.write_all(&buffer[..n])?;
            }
        }
    }
    file.sync_all()?;
    Ok(hex(&hash.finalize()))
}
