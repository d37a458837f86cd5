use plan::CellName;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::info::{PROCESSES, process_file};
use super::listing::{names, remove_folder};
use super::record::{LEASES, lease_file};
use super::*;
use crate::files;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const FAR: &str = "fafafafafafafafa";

fn process(root: &Path, stale_after: f64) -> Process {
    Process::join(root, ProcessInfo::this(Some("plan".into()), false, stale_after)).unwrap()
}

fn cell() -> CellName {
    CellName::new(KEY, "cell")
}

#[track_caller]
fn held(attempt: Attempt) -> Lease {
    match attempt {
        Attempt::Held(lease) => lease,
        Attempt::Busy(holder) => panic!("held by {holder}"),
    }
}

/// A process on another host that promises a sign of life every 0.6 s, and its lease.
fn elsewhere(root: &Path) -> PathBuf {
    let info = ProcessInfo {
        host: "elsewhere".into(),
        machine: "elsewhere".into(),
        ..ProcessInfo::this(Some("plan".into()), false, 0.6)
    };
    let token: Token = FAR.parse().unwrap();
    let file = process_file(root, &token);
    files::write_json(&file, &info).unwrap();
    let holder = Holder {
        by: token,
        host: "elsewhere".into(),
        process: 1,
        since: 0,
        work: format!("{}.{FAR}", cell()).parse().unwrap(),
    };
    let work = holder.work.folder(root);
    files::make_folder(&work).unwrap();
    files::write(&work.join("begun"), b"1").unwrap();
    files::write_json(&lease_file(root, KEY, 3), &holder).unwrap();
    file
}

/// Eight processes, one per thread, competing for the same cells.
#[test]
fn every_cell_is_held_by_one_and_ended_once() {
    const CELLS: usize = 40;
    let run = tempfile::tempdir().unwrap();
    let root = run.path();
    let inside: Vec<AtomicU64> = (0..CELLS).map(|_| AtomicU64::new(0)).collect();
    let published: u64 = std::thread::scope(|scope| {
        let racer = |racer: usize| {
            let process = process(root, STALE_AFTER);
            let mut published = 0;
            let mut left: Vec<usize> = (0..CELLS).map(|k| (k + 5 * racer) % CELLS).collect();
            while !left.is_empty() {
                left.retain(|&k| {
                    let key = format!("{k:012x}{KEY}");
                    let cell = CellName::new(&key, "c");
                    let folder = root.join("cells").join(&cell);
                    let Attempt::Held(lease) = process.lease(&key, &cell).unwrap() else {
                        return true;
                    };
                    assert_eq!(inside[k].fetch_add(1, Ordering::SeqCst), 0, "two hold {key}");
                    if folder.exists() {
                        inside[k].fetch_sub(1, Ordering::SeqCst);
                        lease.abandon();
                    } else {
                        files::make_folder(lease.work()).unwrap();
                        fs::write(lease.work().join("result"), "7").unwrap();
                        inside[k].fetch_sub(1, Ordering::SeqCst);
                        let ended = lease.publish(&folder, &|| folder.exists()).unwrap();
                        assert_eq!(ended, Published::Ours);
                        published += 1;
                    }
                    false
                });
            }
            published
        };
        let racers: Vec<_> = (0..8).map(|k| scope.spawn(move || racer(k))).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert_eq!(published, CELLS as u64);
    assert_eq!(
        names(&root.join("cells")).unwrap().len(),
        CELLS,
        "nothing is left but cells"
    );
    assert_eq!(names(&root.join(LEASES)).unwrap().len(), 0);
    assert_eq!(names(&root.join(PROCESSES)).unwrap().len(), 0);
}

#[test]
fn one_of_many_takes_a_dead_ones_cell_with_what_it_had_begun() {
    for round in 0..20 {
        let run = tempfile::tempdir().unwrap();
        let root = run.path();
        let dead = process(root, STALE_AFTER);
        let lease = held(dead.lease(KEY, &cell()).unwrap());
        files::make_folder(lease.work()).unwrap();
        fs::write(lease.work().join("begun"), "1").unwrap();
        drop(dead);
        let start = std::sync::Barrier::new(6);
        let alive: Vec<Process> = (0..6).map(|_| process(root, STALE_AFTER)).collect();
        let attempts: Vec<Attempt> = std::thread::scope(|scope| {
            let start = &start;
            let racers = alive.iter().map(|process| {
                scope.spawn(move || {
                    start.wait();
                    process.lease(KEY, &cell()).unwrap()
                })
            });
            let racers: Vec<_> = racers.collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let leases: Vec<Lease> = attempts
            .into_iter()
            .filter_map(|attempt| match attempt {
                Attempt::Held(lease) => Some(lease),
                Attempt::Busy(_) => None,
            })
            .collect();
        assert_eq!(leases.len(), 1, "round {round}");
        assert!(leases[0].work().join("begun").exists() && leases[0].holds());
        assert!(!lease.holds());
    }
}

/// The host's clock is wrong and jumps; as long as it changes, the process counts as alive.
#[test]
fn a_process_elsewhere_lives_as_long_as_its_file_changes() {
    let run = tempfile::tempdir().unwrap();
    let process = process(run.path(), STALE_AFTER);
    let file = elsewhere(run.path());
    for beat in 0..30u64 {
        let years = if beat.is_multiple_of(2) { 10 } else { 90 };
        let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(years * 31_556_952 + beat);
        File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(clock)
            .unwrap();
        assert!(
            matches!(process.lease(KEY, &cell()).unwrap(), Attempt::Busy(_)),
            "beat {beat}"
        );
        std::thread::sleep(Duration::from_millis(40));
    }
    let silent = Instant::now();
    let lease = loop {
        match process.lease(KEY, &cell()).unwrap() {
            Attempt::Held(lease) => break lease,
            Attempt::Busy(holder) => assert_eq!(holder.host, "elsewhere"),
        }
        assert!(silent.elapsed() < Duration::from_secs(60), "never taken over");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(silent.elapsed() >= Duration::from_millis(500), "taken over too soon");
    assert!(lease.work().join("begun").exists());
    assert!(!file.exists(), "no other process has to find out");
}

/// A process that was suspended cannot conclude that others were silent.
#[test]
fn only_time_spent_looking_counts() {
    let run = tempfile::tempdir().unwrap();
    let process = process(run.path(), STALE_AFTER);
    elsewhere(run.path());
    for _ in 0..3 {
        assert!(matches!(process.lease(KEY, &cell()).unwrap(), Attempt::Busy(_)));
        std::thread::sleep(Duration::from_millis(700));
    }
}

#[test]
fn an_owner_taken_for_dead_cannot_touch_the_cell_any_more() {
    let run = tempfile::tempdir().unwrap();
    let root = run.path();
    let (slow, quick) = (process(root, STALE_AFTER), process(root, STALE_AFTER));
    let old = held(slow.lease(KEY, &cell()).unwrap());
    files::make_folder(old.work()).unwrap();
    files::write(&old.work().join("begun"), b"1").unwrap();
    // Like a process that has not seen a sign of life for a long time.
    fs::remove_file(process_file(root, &slow.shared.token())).unwrap();
    let new = held(quick.lease(KEY, &cell()).unwrap());
    assert!(new.work().join("begun").exists());
    assert!(files::write(&old.work().join("late"), b"1").is_err());
    assert!(!old.holds() && new.holds());
    let folder = root.join("cells").join(cell());
    assert_eq!(old.publish(&folder, &|| folder.exists()).unwrap(), Published::Lost);
    assert!(!folder.exists());
    assert_eq!(new.publish(&folder, &|| folder.exists()).unwrap(), Published::Ours);
    assert_eq!(names(&folder).unwrap(), ["begun"]);
}

/// It comes back under another token, and what it leases then holds.
#[test]
fn a_process_taken_for_dead_registers_again() {
    let run = tempfile::tempdir().unwrap();
    let root = run.path();
    let slow = process(root, 1.0);
    let before = slow.shared.token();
    let old = held(slow.lease(KEY, &cell()).unwrap());
    fs::remove_file(process_file(root, &before)).unwrap();
    let start = Instant::now();
    while slow.shared.token() == before {
        assert!(start.elapsed() < Duration::from_secs(60), "it never notices");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!old.holds());
    assert!(held(slow.lease(KEY, &cell()).unwrap()).holds());
}

#[test]
fn the_first_finished_cell_is_kept_and_invalid_ones_are_replaced() {
    let run = tempfile::tempdir().unwrap();
    let root = run.path();
    let process = process(root, STALE_AFTER);
    let folder = root.join("cells").join(cell());
    for (there, published, content) in [
        (None, Published::Ours, "new"),
        (Some("whole"), Published::Theirs, "whole"),
        (Some("rubbish"), Published::Ours, "new"),
    ] {
        remove_folder(&folder);
        if let Some(text) = there {
            files::make_folder(&folder).unwrap();
            fs::write(folder.join("it"), text).unwrap();
        }
        let lease = held(process.lease(KEY, &cell()).unwrap());
        files::make_folder(lease.work()).unwrap();
        fs::write(lease.work().join("it"), "new").unwrap();
        let whole = || fs::read_to_string(folder.join("it")).is_ok_and(|text| text == "whole");
        assert_eq!(lease.publish(&folder, &whole).unwrap(), published);
        assert_eq!(fs::read_to_string(folder.join("it")).unwrap(), content);
        assert_eq!(names(&root.join("cells")).unwrap(), [cell().to_string()]);
    }
}

/// A lease of a foreign or damaged run: the process that takes it over moves and removes only work on that cell.
#[test]
fn a_foreign_lease_neither_moves_nor_removes_other_folders() {
    let place = tempfile::tempdir().unwrap();
    let (root, outside) = (place.path().join("run"), place.path().join("outside"));
    let other = CellName::new("fedcba9876543210", "other");
    let others_work = root.join("cells").join(format!("{other}.{FAR}"));
    let finished = root.join("cells").join(&other);
    for folder in [&outside, &others_work, &finished] {
        files::make_folder(folder).unwrap();
        fs::write(folder.join("precious"), "1").unwrap();
    }
    fs::write(place.path().join("precious.json"), "1").unwrap();
    let works = [
        outside.display().to_string(),
        "../../outside".into(),
        format!("../../outside.{FAR}"),
        format!("{other}.{FAR}"),
        other.to_string(),
        format!("{}/../{other}.{FAR}", cell()),
        "..".into(),
        String::new(),
    ];
    let reader = process(&root, STALE_AFTER);
    for (number, work) in works.iter().enumerate() {
        for by in [FAR, "../../precious"] {
            let text = serde_json::json!({
                "by": by, "host": "h", "process": 1, "since": 0, "work": work
            });
            for number in [number as u64 + 1, number as u64 + 2] {
                files::write_json(&lease_file(&root, KEY, number), &text).unwrap();
            }
            files::write_json(&lease_file(&root, "tables", 1), &text).unwrap();
            assert!(watch(&root).unwrap().is_empty());
            let lease = held(reader.lease(KEY, &cell()).unwrap());
            assert!(!lease.work().exists(), "{work}");
            lease.abandon();
            files::write_json(&lease_file(&root, KEY, 1), &text).unwrap();
            tidy(&reader, &|_| true).unwrap();
            reader.wait_for_tables(&|| false).unwrap().unwrap().abandon();
            for folder in [&outside, &others_work, &finished] {
                assert!(folder.join("precious").exists(), "{by} {work}: {}", folder.display());
            }
            assert!(place.path().join("precious.json").exists());
        }
    }
}

/// Names and numbers that this program never writes are an error or are ignored; nothing panics.
#[test]
fn foreign_names_and_numbers_are_no_leases() {
    let run = tempfile::tempdir().unwrap();
    let root = run.path();
    let reader = process(root, STALE_AFTER);
    for name in [
        "é.1",
        "éééééééééééé.1",
        "A.1",
        ".1",
        "a.-1",
        "a.99999999999999999999999",
        "a",
        "a.1.2",
    ] {
        fs::write(root.join(LEASES).join(name), "{}").unwrap();
    }
    fs::write(root.join(PROCESSES).join("é.json"), "{}").unwrap();
    assert!(watch(root).unwrap().is_empty() && reader.others().unwrap().is_empty());
    fs::write(lease_file(root, KEY, u64::MAX), "{}").unwrap();
    let error = reader.lease(KEY, &cell()).unwrap_err().to_string();
    assert!(error.contains("delete it"), "{error}");
    // Time spans that no clock can represent.
    let token: Token = FAR.parse().unwrap();
    for stale_after in ["-1", "0", "1e300"] {
        let info = serde_json::to_string(&ProcessInfo::this(None, false, 7.5)).unwrap();
        fs::write(process_file(root, &token), info.replace("7.5", stale_after)).unwrap();
        assert!(ProcessInfo::read(root, &token).is_none(), "{stale_after}");
        assert!(reader.others().unwrap().is_empty());
    }
}
