//! Tests of downloads.

use super::*;
use crate::checksum::md5_hex;
use crate::entry::{IdxFile, Remote};
use crate::idx::tests::{file as idx_file, gz};
use crate::{Family, cifar10, mnist};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the server answers one request.
#[derive(Clone)]
enum Reply {
    /// The file, or the range asked for.
    Good,
    /// As `Good`, but the connection drops after this many bytes.
    Drop(usize),
    /// As `Drop`, without saying how long the file is.
    DropUnannounced(usize),
    /// The whole file, for every request.
    IgnoresRange,
    /// The range from 0, for every request.
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
    // One official file is there, and one of the user's own.
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
    // Again: nothing to do, no mirror is asked.
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
        ("/elsewhere/small/test.bin", b"boo"),
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
