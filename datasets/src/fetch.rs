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
mod tests {
    use super::*;
    use crate::entry::IdxFile;
    use crate::idx::tests::{file as idx_file, gz};
    use crate::verify::md5_hex;
    use crate::{Family, cifar10, mnist};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    /// How the server answers one request.
    #[derive(Clone)]
    enum Reply {
        /// The file, or the range asked for.
        Good,
        /// As `Good`, but the connection drops after this many bytes.
        Drop(usize),
        /// As `Drop`, without saying how long the file is.
        DropUnannounced(usize),
        /// The whole file, whatever was asked.
        IgnoresRange,
        /// The range from 0, whatever was asked.
        WrongRange,
        /// This content instead.
        Other(Vec<u8>),
        /// This content instead, without a length.
        OtherUnannounced(Vec<u8>),
        Html,
        Status(u16),
    }

    /// Answers one connection after the other, each with the next reply. Returns its address and the
    /// requests it got: path and `Range`.
    type Log = Arc<Mutex<Vec<(String, Option<String>)>>>;

    fn serve(replies: Vec<(Reply, Vec<u8>)>) -> (String, Log) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap());
        let log: Log = Arc::default();
        let seen = log.clone();
        std::thread::spawn(move || {
            for (reply, content) in replies {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).unwrap();
                let path = request.split(' ').nth(1).unwrap().to_string();
                let lines = request.lines();
                let range = lines
                    .filter_map(|line| line.to_lowercase().strip_prefix("range: ").map(str::to_string))
                    .next();
                seen.lock().unwrap().push((path, range.clone()));
                let from = range.map_or(0, |range| {
                    range["bytes=".len()..].trim_end_matches('-').parse::<usize>().unwrap()
                });
                let part = || (content[from..].to_vec(), if from > 0 { 206 } else { 200 }, from);
                let (body, status, from) = match &reply {
                    Reply::IgnoresRange => (content.clone(), 200, 0),
                    Reply::WrongRange => (content.clone(), 206, 0),
                    Reply::Other(other) | Reply::OtherUnannounced(other) => (other.clone(), 200, 0),
                    Reply::Html => (b"<html>please log in</html>".to_vec(), 200, 0),
                    Reply::Status(status) => (Vec::new(), *status, 0),
                    _ => part(),
                };
                let mut head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n");
                if status == 206 {
                    let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
                    head += &format!("Content-Range: {range}\r\n");
                }
                if !matches!(reply, Reply::DropUnannounced(_) | Reply::OtherUnannounced(_)) {
                    head += &format!("Content-Length: {}\r\n", body.len());
                }
                if matches!(reply, Reply::Html) {
                    head += "Content-Type: text/html; charset=utf-8\r\n";
                }
                let sent = match reply {
                    Reply::Drop(n) | Reply::DropUnannounced(n) => &body[..n.min(body.len())],
                    _ => &body[..],
                };
                let _ = stream.write_all(format!("{head}\r\n").as_bytes());
                let _ = stream.write_all(sent);
            }
        });
        (base, log)
    }

    fn leak(text: String) -> &'static str {
        Box::leak(text.into_boxed_str())
    }

    fn remote(name: &'static str, content: &[u8]) -> Remote {
        Remote {
            name,
            size: content.len() as u64,
            md5: leak(md5_hex(content)),
        }
    }

    fn quick(base: &str) -> Mirrors {
        Mirrors {
            attempts: 3,
            pause: Duration::ZERO,
            timeout: Duration::from_secs(5),
            ..Mirrors::at(base)
        }
    }

    /// 5 kB that begin as a gzip file does.
    fn content() -> Vec<u8> {
        let noise = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8);
        [0x1f, 0x8b].into_iter().chain(noise).collect()
    }

    struct Outcome {
        result: Result<Origin, DataError>,
        target: Option<Vec<u8>>,
        part: Option<Vec<u8>>,
        ranges: Vec<Option<String>>,
    }

    impl Outcome {
        #[track_caller]
        fn good(&self, ranges: &[Option<&str>]) {
            assert_eq!(*self.result.as_ref().unwrap(), Origin::Downloaded);
            assert_eq!(self.target.as_deref(), Some(&content()[..]));
            assert_eq!(self.part, None);
            let seen: Vec<Option<&str>> = self.ranges.iter().map(Option::as_deref).collect();
            assert_eq!(seen, ranges);
        }

        #[track_caller]
        fn bad(&self, reason: &str) {
            let error = self.result.as_ref().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert!(
                error.contains("cannot download `x.gz`") && error.contains("RAMPART_MIRROR"),
                "{error}"
            );
            assert_eq!(self.target, None);
        }
    }

    /// Downloads `x.gz` from a server that gives these replies, with this much of it there.
    fn outcome(replies: &[Reply], part: Option<&[u8]>) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        if let Some(part) = part {
            fs::write(folder.path().join("x.gz.part"), part).unwrap();
        }
        let (base, log) = serve(replies.iter().map(|reply| (reply.clone(), content())).collect());
        let remote = remote("x.gz", &content());
        let urls = [format!("{base}x.gz")];
        let result = obtain(&remote, folder.path(), &urls, &quick(&base), &mut |_| {});
        let ranges = log.lock().unwrap().iter().map(|(_, range)| range.clone()).collect();
        Outcome {
            result,
            target: fs::read(folder.path().join("x.gz")).ok(),
            part: fs::read(folder.path().join("x.gz.part")).ok(),
            ranges,
        }
    }

    #[test]
    fn a_good_file_arrives() {
        outcome(&[Reply::Good], None).good(&[None]);
    }

    #[test]
    fn a_dropped_connection_is_resumed() {
        outcome(&[Reply::Drop(1000), Reply::Drop(500), Reply::Good], None).good(&[
            None,
            Some("bytes=1000-"),
            Some("bytes=1500-"),
        ]);
        outcome(&[Reply::DropUnannounced(7), Reply::Good], None).good(&[None, Some("bytes=7-")]);
    }

    #[test]
    fn what_an_earlier_process_left_is_used() {
        outcome(&[Reply::Good], Some(&content()[..2345])).good(&[Some("bytes=2345-")]);
        // All of it was there.
        outcome(&[], Some(&content())).good(&[]);
        // It cannot be a beginning of the file.
        outcome(&[Reply::Good], Some(b"<html>")).good(&[None]);
        outcome(&[Reply::Good], Some(&[content(), content()].concat())).good(&[None]);
    }

    #[test]
    fn a_wrong_beginning_is_thrown_away() {
        let mut wrong = content()[..2345].to_vec();
        wrong[99] ^= 1;
        outcome(&[Reply::Good, Reply::Good], Some(&wrong)).good(&[Some("bytes=2345-"), None]);
    }

    #[test]
    fn a_server_that_cannot_resume_starts_over() {
        let part = Some(&content()[..2345]);
        outcome(&[Reply::IgnoresRange], part).good(&[Some("bytes=2345-")]);
        outcome(&[Reply::WrongRange, Reply::Good], part).good(&[Some("bytes=2345-"), None]);
        outcome(&[Reply::Status(416), Reply::Good], part).good(&[Some("bytes=2345-"), None]);
    }

    #[test]
    fn a_busy_server_is_asked_again() {
        outcome(&[Reply::Status(503), Reply::Status(429), Reply::Good], None).good(&[None; 3]);
        let outcome = outcome(&[Reply::Status(503), Reply::Status(503), Reply::Status(503)], None);
        outcome.bad("status 503");
        assert_eq!(outcome.ranges.len(), 3);
    }

    #[test]
    fn wrong_content_is_no_file() {
        let none = |outcome: Outcome, reason: &str| {
            outcome.bad(reason);
            assert_eq!(outcome.part, None);
            assert_eq!(outcome.ranges.len(), 1);
        };
        let mut wrong = content();
        wrong[4000] ^= 1;
        none(outcome(&[Reply::Other(wrong)], None), "the file has md5");
        none(outcome(&[Reply::Html], None), "a web page");
        none(outcome(&[Reply::Status(404)], None), "status 404");
        let short = content()[..4000].to_vec();
        none(
            outcome(&[Reply::Other(short)], None),
            "announces 4000 bytes instead of 5002",
        );
        let long = [content(), vec![0]].concat();
        none(outcome(&[Reply::Other(long.clone())], None), "announces 5003 bytes");
        none(outcome(&[Reply::OtherUnannounced(long)], None), "more than 5002 bytes");
        let page = b"please log in".to_vec();
        none(outcome(&[Reply::OtherUnannounced(page)], None), "something else");
    }

    #[test]
    fn what_is_lacking_can_be_fetched_later() {
        let replies = [Reply::Drop(1000), Reply::Drop(0), Reply::Drop(1)];
        let outcome = outcome(&replies, None);
        outcome.bad("after 1001 of 5002 bytes");
        assert_eq!(outcome.part.as_deref(), Some(&content()[..1001]));
    }

    #[test]
    fn the_next_mirror_helps_out() {
        let folder = tempfile::tempdir().unwrap();
        let (first, _) = serve(vec![(Reply::Status(404), content())]);
        let (second, _) = serve(vec![(Reply::Good, content())]);
        let urls = [first.clone() + "x.gz", second + "x.gz"];
        let mut events = Vec::new();
        let remote = remote("x.gz", &content());
        obtain(&remote, folder.path(), &urls, &quick(&first), &mut |event| {
            events.push(format!("{event:?}"))
        })
        .unwrap();
        assert_eq!(fs::read(folder.path().join("x.gz")).unwrap(), content());
        assert!(events[1].contains("status 404"), "{events:?}");
        assert!(
            events[events.len() - 2].contains("done: 5002, total: 5002"),
            "{events:?}"
        );
        assert!(events[events.len() - 1].starts_with("Done"), "{events:?}");
    }

    #[test]
    fn a_silent_server_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap());
        let mirrors = Mirrors {
            attempts: 1,
            timeout: Duration::from_millis(50),
            ..quick(&base)
        };
        let folder = tempfile::tempdir().unwrap();
        let remote = remote("x.gz", &content());
        let error = obtain(&remote, folder.path(), &[base], &mirrors, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("timeout"), "{error}");
    }

    /// MNIST with one tiny image in each split.
    fn small_mnist() -> (Entry, Vec<Vec<u8>>) {
        let images = gz(&idx_file(&[1, 28, 28], &[5; 784]));
        let labels = gz(&idx_file(&[1], &[3]));
        let contents = vec![images.clone(), labels.clone(), images, labels];
        let Storage::Idx(mut files) = mnist::ENTRY.storage else {
            unreachable!()
        };
        for (file, content) in files.iter_mut().zip(&contents) {
            *file = IdxFile {
                packed: remote(file.packed.name, content),
                unpacked: None,
            };
        }
        let entry = Entry {
            storage: Storage::Idx(files),
            ..mnist::ENTRY
        };
        (entry, contents)
    }

    #[test]
    fn a_data_set_of_files_can_be_read_once_fetched() {
        let (entry, contents) = small_mnist();
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("mnist");
        fs::create_dir(&folder).unwrap();
        // One file is there, one is somebody's own.
        fs::write(folder.join("train-labels-idx1-ubyte.gz"), &contents[1]).unwrap();
        fs::write(folder.join("t10k-labels-idx1-ubyte.gz"), "mine").unwrap();
        let missing = [0, 2, 3];
        let (base, log) = serve(missing.map(|index| (Reply::Good, contents[index].clone())).to_vec());
        fetch_entry(&entry, root.path(), &quick(&base), &mut |_| {}).unwrap();
        let paths: Vec<String> = log.lock().unwrap().iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(paths[0], "/mnist/train-images-idx3-ubyte.gz");
        assert_eq!(paths.len(), 3);
        assert!(entry.read(root.path(), Verify::Yes).unwrap().verified);
        let aside = folder.join("t10k-labels-idx1-ubyte.gz.replaced");
        assert_eq!(fs::read(aside).unwrap(), b"mine");
        // Again: nothing to do, nobody asked.
        let mut events = Vec::new();
        fetch_entry(&entry, root.path(), &quick(&base), &mut |event| {
            events.push(format!("{event:?}"))
        })
        .unwrap();
        assert_eq!(events, [r#"Present { file: "mnist" }"#]);
    }

    const MEMBERS: &[Member] = &[
        Member {
            name: "train.bin",
            size: 3073,
            md5: None,
        },
        Member {
            name: "test.bin",
            size: 3073,
            md5: None,
        },
    ];

    fn archive(items: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in items {
            let mut header = tar::Header::new_gnu();
            // Straight into the header: the builder refuses paths that climb.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, *content).unwrap();
        }
        gz(&tar.into_inner().unwrap())
    }

    fn small_cifar(archive: &[u8]) -> Entry {
        Entry {
            family: Family::Cifar,
            storage: Storage::Cifar {
                archive: remote("small.tar.gz", archive),
                folder: "small",
                train: &MEMBERS[..1],
                test: &MEMBERS[1..],
                labels: &[10],
            },
            ..cifar10::ENTRY
        }
    }

    #[test]
    fn an_archive_is_unpacked_and_vouched_for() {
        let packed = archive(&[
            ("small/readme.html", b"hello"),
            ("./small/train.bin", &[1; 3073]),
            ("small/test.bin", &[2; 3073]),
            ("../escaped", b"boo"),
            ("../small/train.bin", b"boo"),
            ("/tmp/small/test.bin", b"boo"),
        ]);
        let entry = small_cifar(&packed);
        let outside = tempfile::tempdir().unwrap();
        let root = &outside.path().join("root");
        fs::create_dir_all(root.join("small")).unwrap();
        fs::write(root.join("small/test.bin"), [7; 3073]).unwrap();
        let (base, log) = serve(vec![(Reply::Drop(40), packed.clone()), (Reply::Good, packed.clone())]);
        fetch_entry(&entry, root, &quick(&base), &mut |_| {}).unwrap();
        assert_eq!(
            log.lock().unwrap()[1],
            ("/small.tar.gz".into(), Some("bytes=40-".into()))
        );

        let data = entry.read(root, Verify::Yes).unwrap();
        assert!(data.verified);
        assert_eq!((data.train.labels(), data.test.labels()), (&[1][..], &[2][..]));
        let list = |folder: &Path| {
            let names = fs::read_dir(folder).unwrap().map(|item| item.unwrap().file_name());
            let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(list(outside.path()), ["root"]);
        assert_eq!(list(root), [".cifar10.lock", "small"]);
        let files = ["rampart-verified.json", "test.bin", "test.bin.replaced", "train.bin"];
        assert_eq!(list(&root.join("small")), files);

        // Changed afterwards: the record no longer vouches for it.
        fs::write(root.join("small/test.bin"), [3; 3073]).unwrap();
        assert!(entry.read(root, Verify::Yes).is_err());
        assert!(!entry.read(root, Verify::No).unwrap().verified);
        // An archive put there by hand repairs it without a mirror, and stays.
        fs::write(root.join("small.tar.gz"), &packed).unwrap();
        fetch_entry(&entry, root, &quick("http://127.0.0.1:9"), &mut |_| {}).unwrap();
        assert!(entry.read(root, Verify::Yes).unwrap().verified);
        assert!(root.join("small.tar.gz").exists());
    }

    #[test]
    fn an_archive_without_the_files_is_refused() {
        let refused = |items: &[(&str, &[u8])], problem: &str| {
            let packed = archive(items);
            let entry = small_cifar(&packed);
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join("small.tar.gz"), &packed).unwrap();
            let error = fetch_entry(&entry, root.path(), &quick("http://127.0.0.1:9"), &mut |_| {}).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
            assert!(!root.path().join("small").exists());
        };
        let train: (&str, &[u8]) = ("small/train.bin", &[1; 3073]);
        refused(&[train], "`small/test.bin` is not in it");
        refused(
            &[train, ("small/test.bin", &[1; 9])],
            "`test.bin` is not one file of 3073 bytes",
        );
        refused(&[train, train], "`train.bin` is not one file");
        refused(&[("deep/small/train.bin", &[1; 3073])], "not in it");
    }

    #[test]
    fn only_one_process_fetches() {
        let root = tempfile::tempdir().unwrap();
        let held = lock(root.path(), "mnist", &mut |_| {}).unwrap();
        let path = root.path().to_path_buf();
        let (send, events) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            lock(&path, "mnist", &mut |event| send.send(format!("{event:?}")).unwrap()).unwrap();
        });
        assert_eq!(events.recv().unwrap(), "Waiting");
        drop(held);
        waiting.join().unwrap();
    }

    #[test]
    fn embedded_data_need_no_download() {
        let mut events = Vec::new();
        let mut progress = |event: Progress<'_>| events.push(format!("{event:?}"));
        fetch("digits", Path::new("/nowhere"), &Mirrors::official(), &mut progress).unwrap();
        assert_eq!(events, [r#"Present { file: "digits" }"#]);
    }

    #[test]
    fn addresses_are_the_publishers_or_the_mirrors() {
        let cifar = &cifar10::ENTRY;
        let official = Mirrors::official();
        let path = "mnist/t10k-labels-idx1-ubyte.gz";
        assert_eq!(
            official.urls(&mnist::ENTRY, path)[0],
            "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz"
        );
        assert_eq!(
            official.urls(cifar, "cifar-10-binary.tar.gz"),
            ["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"]
        );
        assert_eq!(
            Mirrors::at("http://a/b/").urls(&mnist::ENTRY, path),
            [format!("http://a/b/{path}")]
        );
    }
}
