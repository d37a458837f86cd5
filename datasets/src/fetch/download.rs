//! Downloads one file, resumes it, verifies it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use ureq::Agent;
use ureq::http::header;

use super::files::{discard, set_aside, sync_folder, write_error};
use super::mirrors::Mirrors;
use super::progress::Progress;
use crate::DataError;
use crate::checksum::md5_of_file;
use crate::entry::Remote;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Present,
    Downloaded,
}

/// Why a mirror did not deliver the file.
enum Failure {
    /// Temporary: the same mirror may succeed later.
    Again(String),
    /// Permanent: the same mirror will fail again.
    Hopeless(String),
    /// The error is on this machine.
    Here(DataError),
}

/// Downloads the file into the folder, unless it is there.
pub(super) fn obtain(
    remote: &Remote,
    folder: &Path,
    urls: &[String],
    mirrors: &Mirrors,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Origin, DataError> {
    let target = folder.join(remote.name);
    if md5_of_file(&target).is_ok_and(|md5| md5 == remote.md5) {
        progress(Progress::Present { file: remote.name });
        return Ok(Origin::Present);
    }
    let part = folder.join(format!("{}.part", remote.name));
    let agent = mirrors.agent();
    let mut tried = Vec::new();
    for url in urls {
        let mut pause = mirrors.pause;
        for attempt in 1..=mirrors.attempts.max(1) {
            progress(Progress::Asking { file: remote.name, url });
            let reason = match download(&agent, url, remote, &part, progress) {
                Ok(()) => {
                    set_aside(&target)?;
                    fs::rename(&part, &target).map_err(write_error(&target))?;
                    sync_folder(folder);
                    progress(Progress::Done { file: remote.name });
                    return Ok(Origin::Downloaded);
                }
                Err(Failure::Here(error)) => return Err(error),
                Err(Failure::Again(reason)) if attempt < mirrors.attempts => {
                    progress(Progress::Failed { url, reason: &reason });
                    std::thread::sleep(pause);
                    pause *= 2;
                    continue;
                }
                Err(Failure::Again(reason) | Failure::Hopeless(reason)) => reason,
            };
            progress(Progress::Failed { url, reason: &reason });
            tried.push(format!("{url}: {reason}"));
            break;
        }
    }
    Err(DataError::Download {
        file: remote.name.to_string(),
        folder: folder.to_path_buf(),
        tried,
    })
}

/// Completes `part` and verifies it. On failure `part` is left only if it may be the file's beginning.
fn download(
    agent: &Agent,
    url: &str,
    remote: &Remote,
    part: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), Failure> {
    let here = |source| Failure::Here(write_error(part)(source));
    let mut have = resumable(part, remote);
    if have == 0 {
        discard(part).map_err(here)?;
    }
    let resumed = have > 0;
    if have < remote.size {
        let mut request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
        if resumed {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let response = request.call().map_err(|error| match error {
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => {
                Failure::Again(error.to_string())
            }
            other => Failure::Hopeless(other.to_string()),
        })?;
        let field = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        match response.status().as_u16() {
            // The server sent the whole file, whether requested or not.
            200 => have = 0,
            206 if resumed && field(header::CONTENT_RANGE).and_then(range_start) == Some(have) => {}
            206 | 416 if resumed => {
                discard(part).map_err(here)?;
                return Err(Failure::Again(format!("it cannot go on from byte {have}")));
            }
            status @ (408 | 429 | 500..) => return Err(Failure::Again(format!("it answers with status {status}"))),
            status => return Err(Failure::Hopeless(format!("it answers with status {status}"))),
        }
        if field(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html")) {
            return Err(Failure::Hopeless("it sends a web page instead of the file".into()));
        }
        let announced = field(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        if let Some(announced) = announced.filter(|announced| *announced != remote.size - have) {
            let expected = remote.size - have;
            let reason = format!("it announces {announced} bytes instead of {expected}");
            return Err(Failure::Hopeless(reason));
        }
        let mut body = response.into_body().into_reader();
        let ended = append(&mut body, remote, part, &mut have, progress);
        // A partial file that does not begin like the real one is not worth resuming.
        if have > 0 && resumable(part, remote) == 0 {
            discard(part).map_err(here)?;
            return Err(Failure::Hopeless(
                "it sends something else than the compressed file".into(),
            ));
        }
        ended?;
    }
    let md5 = md5_of_file(part).map_err(here)?;
    if md5 == remote.md5 {
        return Ok(());
    }
    discard(part).map_err(here)?;
    let reason = format!("the file has md5 {md5} instead of {}", remote.md5);
    Err(if resumed {
        Failure::Again(reason)
    } else {
        Failure::Hopeless(reason)
    })
}

/// Appends the body to the first `have` bytes of `part` until the file is complete.
fn append(
    body: &mut dyn Read,
    remote: &Remote,
    part: &Path,
    have: &mut u64,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), Failure> {
    let here = |source| Failure::Here(write_error(part)(source));
    let mut options = File::options();
    let mut file = options
        .create(true)
        .write(true)
        .truncate(false)
        .open(part)
        .map_err(here)?;
    file.set_len(*have).map_err(here)?;
    file.seek(SeekFrom::Start(*have)).map_err(here)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let broken = match body.read(&mut buffer) {
            Ok(0) if *have == remote.size => break,
            Ok(0) => "the connection ends".to_string(),
            Ok(n) if *have + n as u64 > remote.size => {
                drop(file);
                discard(part).map_err(here)?;
                *have = 0;
                return Err(Failure::Hopeless(format!("it sends more than {} bytes", remote.size)));
            }
            Ok(n) => {
                file.write_all(&buffer[..n]).map_err(here)?;
                *have += n as u64;
                progress(Progress::Bytes {
                    file: remote.name,
                    done: *have,
                    total: remote.size,
                });
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => format!("the connection breaks off ({error})"),
        };
        let reason = format!("{broken} after {have} of {} bytes", remote.size);
        return Err(Failure::Again(reason));
    }
    file.sync_all().map_err(here)
}

/// How many bytes of `part` may be the file's beginning: all or none.
pub(super) fn resumable(part: &Path, remote: &Remote) -> u64 {
    // Every official file is compressed by gzip.
    const MAGIC: [u8; 2] = [0x1f, 0x8b];
    let mut start = [0; 2];
    let begins = File::open(part).and_then(|mut file| file.read_exact(&mut start));
    match fs::metadata(part) {
        Ok(metadata) if begins.is_ok() && start == MAGIC && metadata.len() <= remote.size => metadata.len(),
        _ => 0,
    }
}

/// The offset of the first byte, from `bytes 100-199/200`.
fn range_start(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
