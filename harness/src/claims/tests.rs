use std::fs::File;
use std::time::Instant;

use super::process::process_file;
use super::*;

fn process(root: &Path, stale_after: f64) -> Process {
    Process::join(root, About::me(Some("plan".into()), false, stale_after)).unwrap()
}

#[track_caller]
fn held(attempt: Attempt) -> Claim {
    match attempt {
        Attempt::Held(claim) => claim,
        Attempt::Busy(note) => panic!("held by {note}"),
    }
}

/// A process on another host that promises a sign of life every 0.6 s, and its claim.
fn elsewhere(root: &Path, key: &str) -> PathBuf {
    let about = About {
        host: "elsewhere".into(),
        machine: "elsewhere".into(),
        ..About::me(Some("plan".into()), false, 0.6)
    };
    let file = process_file(root, "far");
    files::write_json(&file, &about).unwrap();
    let note = Note {
        by: "far".into(),
        host: "elsewhere".into(),
        process: 1,
        since: 0,
        work: format!("{key}.far"),
    };
    files::make_folder(&root.join("cells").join(&note.work)).unwrap();
    files::write(&root.join("cells").join(&note.work).join("begun"), b"1").unwrap();
    files::write_json(&root.join(CLAIMS).join(format!("{key}.3")), &note).unwrap();
    file
}

/// Eight processes, as many threads, all after the same cells.
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
                    let (key, folder) = (format!("key{k}"), root.join(format!("cells/c{k}")));
                    let Attempt::Held(claim) = process.claim(&key, &format!("c{k}")).unwrap() else {
                        return true;
                    };
                    assert_eq!(inside[k].fetch_add(1, Ordering::SeqCst), 0, "two hold {key}");
                    if folder.exists() {
                        inside[k].fetch_sub(1, Ordering::SeqCst);
                        claim.drop_all();
                    } else {
                        files::make_folder(claim.work()).unwrap();
                        fs::write(claim.work().join("result"), "7").unwrap();
                        inside[k].fetch_sub(1, Ordering::SeqCst);
                        let ended = claim.publish(&folder, &|| folder.exists()).unwrap();
                        assert_eq!(ended, Published::Ours);
                        published += 1;
                    }
                    false
                });
            }
            published
        };
        let racers: Vec<_> = (0..8).map(|k| scope.spawn(move || racer(k))).collect();
        racers.into_iter().map(|it| it.join().unwrap()).sum()
    });
    assert_eq!(published, CELLS as u64);
    assert_eq!(
        names(&root.join("cells")).unwrap().len(),
        CELLS,
        "nothing is left but cells"
    );
    assert_eq!(names(&root.join(CLAIMS)).unwrap().len(), 0);
    assert_eq!(names(&root.join(PROCESSES)).unwrap().len(), 0);
}

#[test]
fn one_of_many_takes_a_dead_ones_cell_with_what_it_had_begun() {
    for round in 0..20 {
        let run = tempfile::tempdir().unwrap();
        let root = run.path();
        let dead = process(root, STALE_AFTER);
        let claim = held(dead.claim("key", "cell").unwrap());
        files::make_folder(claim.work()).unwrap();
        fs::write(claim.work().join("begun"), "1").unwrap();
        drop(dead);
        let start = std::sync::Barrier::new(6);
        let alive: Vec<Process> = (0..6).map(|_| process(root, STALE_AFTER)).collect();
        let attempts: Vec<Attempt> = std::thread::scope(|scope| {
            let start = &start;
            let racers = alive.iter().map(|it| {
                scope.spawn(move || {
                    start.wait();
                    it.claim("key", "cell").unwrap()
                })
            });
            let racers: Vec<_> = racers.collect();
            racers.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let claims: Vec<Claim> = attempts
            .into_iter()
            .filter_map(|it| match it {
                Attempt::Held(claim) => Some(claim),
                Attempt::Busy(_) => None,
            })
            .collect();
        assert_eq!(claims.len(), 1, "round {round}");
        assert!(claims[0].work().join("begun").exists() && claims[0].holds());
        assert!(!claim.holds());
    }
}

/// The host's clock is wrong and jumps; as long as it moves, its process lives.
#[test]
fn a_process_elsewhere_lives_as_long_as_its_file_changes() {
    let run = tempfile::tempdir().unwrap();
    let process = process(run.path(), STALE_AFTER);
    let file = elsewhere(run.path(), "key");
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
            matches!(process.claim("key", "cell").unwrap(), Attempt::Busy(_)),
            "beat {beat}"
        );
        std::thread::sleep(Duration::from_millis(40));
    }
    let silent = Instant::now();
    let claim = loop {
        match process.claim("key", "cell").unwrap() {
            Attempt::Held(claim) => break claim,
            Attempt::Busy(note) => assert_eq!(note.host, "elsewhere"),
        }
        assert!(silent.elapsed() < Duration::from_secs(60), "never taken over");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(silent.elapsed() >= Duration::from_millis(500), "taken over too soon");
    assert!(claim.work().join("begun").exists());
    assert!(!file.exists(), "nobody else has to find out");
}

/// Somebody who slept for long has seen nobody be silent.
#[test]
fn only_time_spent_looking_counts() {
    let run = tempfile::tempdir().unwrap();
    let process = process(run.path(), STALE_AFTER);
    elsewhere(run.path(), "key");
    for _ in 0..3 {
        assert!(matches!(process.claim("key", "cell").unwrap(), Attempt::Busy(_)));
        std::thread::sleep(Duration::from_millis(700));
    }
}

#[test]
fn an_owner_taken_for_dead_cannot_touch_the_cell_any_more() {
    let run = tempfile::tempdir().unwrap();
    let root = run.path();
    let (slow, quick) = (process(root, STALE_AFTER), process(root, STALE_AFTER));
    let old = held(slow.claim("key", "cell").unwrap());
    files::make_folder(old.work()).unwrap();
    files::write(&old.work().join("begun"), b"1").unwrap();
    // As whoever has seen no sign of life for long does.
    fs::remove_file(process_file(root, &slow.shared.token())).unwrap();
    let new = held(quick.claim("key", "cell").unwrap());
    assert!(new.work().join("begun").exists());
    assert!(files::write(&old.work().join("late"), b"1").is_err());
    assert!(!old.holds() && new.holds());
    let folder = root.join("cells/cell");
    assert_eq!(old.publish(&folder, &|| folder.exists()).unwrap(), Published::Lost);
    assert!(!folder.exists());
    assert_eq!(new.publish(&folder, &|| folder.exists()).unwrap(), Published::Ours);
    assert_eq!(names(&folder).unwrap(), ["begun"]);
}

/// It comes back under another name, and what it claims then holds.
#[test]
fn a_process_taken_for_dead_registers_anew() {
    let run = tempfile::tempdir().unwrap();
    let root = run.path();
    let slow = process(root, 1.0);
    let before = slow.shared.token();
    let old = held(slow.claim("key", "cell").unwrap());
    fs::remove_file(process_file(root, &before)).unwrap();
    let start = Instant::now();
    while slow.shared.token() == before {
        assert!(start.elapsed() < Duration::from_secs(60), "it never notices");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!old.holds());
    assert!(held(slow.claim("key", "cell").unwrap()).holds());
}

#[test]
fn the_first_to_end_a_cell_stays_and_rubbish_is_replaced() {
    let run = tempfile::tempdir().unwrap();
    let root = run.path();
    let process = process(root, STALE_AFTER);
    let folder = root.join("cells/cell");
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
        let claim = held(process.claim("key", "cell").unwrap());
        files::make_folder(claim.work()).unwrap();
        fs::write(claim.work().join("it"), "new").unwrap();
        let whole = || fs::read_to_string(folder.join("it")).is_ok_and(|it| it == "whole");
        assert_eq!(claim.publish(&folder, &whole).unwrap(), published);
        assert_eq!(fs::read_to_string(folder.join("it")).unwrap(), content);
        assert_eq!(names(&root.join("cells")).unwrap(), ["cell"]);
    }
}
