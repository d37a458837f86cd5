//! Downloads: to `NAME.part`, resumed where it broke off, verified, and only then renamed.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::http::header;

use crate::entry::{Member, Remote, Storage, entry, read_file};
use crate::verify::{RECORD, Record, hex, md5_of_file};
use crate::{DataError, Entry, Verify};

/// Where files are downloaded from, and with how much patience.
#[derive(Debug, Clone)]
pub struct Mirrors {
    base: Option<String>,
    /// How often a mirror is asked for a file before the next one is.
    pub attempts: u32,
    /// How long to wait after the first failure; doubled after each further one.
    pub pause: Duration,
    /// How long a mirror may be silent.
    pub timeout: Duration,
}

impl Mirrors {
    /// The publishers' mirrors.
    pub fn official() -> Self {
        Self {
            base: None,
            attempts: 4,
            pause: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
        }
    }

    /// One mirror, laid out as the data folder is: `BASE/mnist/train-images-idx3-ubyte.gz`,
    /// `BASE/cifar-10-binary.tar.gz`. Files are verified all the same.
    pub fn at(base: impl Into<String>) -> Self {
        Self {
            base: Some(base.into()),
            ..Self::official()
        }
    }

    /// The mirror named by the environment variable `RAMPART_MIRROR`, else the publishers'.
    pub fn from_env() -> Self {
        match std::env::var("RAMPART_MIRROR") {
            Ok(base) if !base.is_empty() => Self::at(base),
            _ => Self::official(),
        }
    }

    fn urls(&self, entry: &Entry, path: &str) -> Vec<String> {
        match &self.base {
            Some(base) => vec![format!("{}/{path}", base.trim_end_matches('/'))],
            None => {
                let file = path.rsplit('/').next().unwrap_or(path);
                entry.mirrors.iter().map(|mirror| format!("{mirror}{file}")).collect()
            }
        }
    }

    fn agent(&self) -> Agent {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("rampart/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(self.timeout))
            .timeout_connect(Some(self.timeout))
            .timeout_recv_response(Some(self.timeout))
            .timeout_per_read(Some(self.timeout));
        // A mirror on this machine is no business of a proxy.
        let local = ["http://127.0.0.1", "http://localhost"];
        if (self.base.as_ref()).is_some_and(|base| local.iter().any(|host| base.starts_with(host))) {
            config = config.proxy(None);
        }
        config.build().new_agent()
    }
}

/// What a download is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Another process fetches the same data set; this one waits for it.
    Waiting,
    /// The file, or the whole data set, is there already.
    Present {
        /// A file's or data set's name.
        file: &'a str,
    },
    /// A mirror is asked.
    Asking {
        /// The file.
        file: &'a str,
        /// Its address.
        url: &'a str,
    },
    /// Bytes have arrived.
    Bytes {
        /// The file.
        file: &'a str,
        /// How many are here, in bytes.
        done: u64,
        /// How many there are, in bytes.
        total: u64,
    },
    /// A mirror failed; it is asked again, or the next one is, or an error follows.
    Failed {
        /// The address.
        url: &'a str,
        /// What happened.
        reason: &'a str,
    },
    /// An archive is being unpacked.
    Unpacking {
        /// The archive.
        file: &'a str,
    },
    /// The file is here and verified.
    Done {
        /// The file.
        file: &'a str,
    },
}

/// Downloads a data set into the folder of all data sets ([`crate::root`]), unless it is there.
///
/// What has the official checksum is kept; anything else of the same name is set aside as
/// `NAME.replaced`. An archive that lies in `root` already is unpacked without asking a mirror.
/// `NAME.part` is what an interrupted download left; the next one goes on from there.
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
                // All of use is unpacked, with a record of where it comes from.
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
    // Where a file system knows no locks, two downloads at once are the user's to avoid: the checksum
    // still keeps wrong files out.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        progress(Progress::Waiting);
        let _ = file.lock();
    }
    Ok(file)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Present,
    Downloaded,
}

/// Why a mirror gave no file.
enum Failure {
    /// The same mirror may do better.
    Again(String),
    /// It will not.
    Hopeless(String),
    /// The trouble is on this side.
    Here(DataError),
}

/// Makes the file be in the folder.
fn obtain(
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
            // The whole file, asked for or not.
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
        // Only what begins like the file is worth going on with.
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

/// Writes the body behind the first `have` bytes of `part` until the file is complete.
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
fn resumable(part: &Path, remote: &Remote) -> u64 {
    // Every official file is compressed by gzip.
    const MAGIC: [u8; 2] = [0x1f, 0x8b];
    let mut start = [0; 2];
    let begins = File::open(part).and_then(|mut file| file.read_exact(&mut start));
    match fs::metadata(part) {
        Ok(metadata) if begins.is_ok() && start == MAGIC && metadata.len() <= remote.size => metadata.len(),
        _ => 0,
    }
}

/// The first byte of `bytes 100-199/200`.
fn range_start(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Unpacks the members into `root/folder`, then writes a [`Record`] beside them. Takes nothing else from
/// the archive, whose checksum the caller has verified.
fn unpack(entry: &Entry, archive: &Remote, folder: &str, members: &[Member], root: &Path) -> Result<(), DataError> {
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

    // An old record must not vouch for new files, nor a new one for old files: it goes first and comes last.
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

/// Keeps what the user may have put there.
fn set_aside(path: &Path) -> Result<(), DataError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".replaced");
    match fs::rename(path, &name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write_error(&PathBuf::from(name))(error)),
        _ => Ok(()),
    }
}

fn discard(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a rename durable where the platform can.
fn sync_folder(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

fn write_error(file: &Path) -> impl Fn(io::Error) -> DataError + use<> {
    let file = file.to_path_buf();
    move |source| DataError::Write {
        file: file.clone(),
        source,
    }
}

#[cfg(test)]
mod tests;
