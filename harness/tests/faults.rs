//! Disks that refuse and signals that interrupt: nothing is corrupted, the error says what to do, and the run goes on.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, SMALL, derived, everything};

/// Every step of every write fails once, and then from there on. All of them with RAMPART_FAULTS=all.
#[test]
fn writes_that_fail_corrupt_nothing() {
    let whole = Place::new(SMALL);
    whole.expect(0, &["m.yaml"]);
    let expected = derived(&whole.path("runs/small"));
    let steps: Vec<u64> = match std::env::var("RAMPART_FAULTS").as_deref() {
        Ok("all") => (1..=400).collect(),
        _ => vec![2, 33, 118, 230],
    };
    let (mut stopped, mut unhurt) = (0, 0);
    for step in steps {
        for what in ["fail", "full"] {
            let place = Place::new(SMALL);
            let mut command = place.harness(&["m.yaml", "--jobs", "1"]);
            let output = command.env("RAMPART_FAULT", format!("{what}@{step}")).output().unwrap();
            let err = String::from_utf8(output.stderr).unwrap();
            match output.status.code() {
                // There are fewer steps.
                Some(0) => unhurt += 1,
                Some(1) => {
                    stopped += 1;
                    let named = err.contains("cannot write") && err.contains("m.yaml") | err.contains("runs/small");
                    assert!(
                        named && (err.contains("no storage space") || err.contains("space left")),
                        "{what}@{step}: {err}"
                    );
                }
                other => panic!("{what}@{step}: {other:?}\n{err}"),
            }
            let left = everything(&place.path("runs/small"));
            assert!(
                !left.iter().any(|it| it.ends_with(".partial")),
                "{what}@{step}: {left:?}"
            );
            place.expect(0, &["m.yaml"]);
            assert_eq!(derived(&place.path("runs/small")), expected, "{what}@{step}");
            place.expect(0, &["check", "runs/small"]);
        }
    }
    assert!(stopped >= 6, "{stopped} runs were stopped");
    eprintln!("{stopped} runs stopped by a write that failed, {unhurt} with fewer writes; all ended at the same bits");
}

/// A bug in one cell's code fails that cell. The others go on, the program ends, and the next run tries the cell again.
#[test]
fn a_panic_fails_a_cell_and_hangs_nothing() {
    let whole = Place::new(SMALL);
    whole.expect(0, &["m.yaml"]);
    let expected = derived(&whole.path("runs/small"));
    let mut failed = 0;
    for step in [25, 40, 70, 110, 150, 200, 250] {
        let place = Place::new(SMALL);
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rampart"));
        command
            .args(["m.yaml", "--jobs", "2"])
            .current_dir(place.path(""))
            .env("RAMPART_FAULT", format!("panic@{step}"))
            .env("RUST_BACKTRACE", "1");
        let output = |name: &str| std::fs::File::create(place.path(name)).unwrap();
        let mut child = command.stdout(output("out")).stderr(output("err")).spawn().unwrap();
        let begun = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            if begun.elapsed() > Duration::from_secs(120) {
                child.kill().unwrap();
                panic!("panic@{step}: the program hangs");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let err = std::fs::read_to_string(place.path("err")).unwrap();
        match code {
            // A cell failed.
            Some(3) => {
                failed += 1;
                let place_of_panic = "panicked at results/src/atomic.rs:";
                assert!(
                    err.contains("failed: ") && err.contains(place_of_panic),
                    "panic@{step}: {err}"
                );
                for folder in ["runs/small/claims", "runs/small/processes"] {
                    assert_eq!(everything(&place.path(folder)), [""; 0], "panic@{step}");
                }
                let results = std::fs::read_to_string(place.path("runs/small/results.csv")).unwrap();
                assert!(
                    results.contains("RAMPART_FAULT") && !results.contains("stack backtrace"),
                    "{results}"
                );
            }
            // The run failed: the thread that forces cells to disk panicked, or the main thread did.
            Some(1 | 101) => assert!(err.contains("panicked at "), "panic@{step}: {err}"),
            other => panic!("panic@{step}: {other:?}\n{err}"),
        }
        place.expect(0, &["m.yaml"]);
        assert_eq!(derived(&place.path("runs/small")), expected, "panic@{step}");
        place.expect(0, &["check", "runs/small"]);
    }
    assert!(failed >= 2, "a cell failed in {failed} runs");
}

/// Some network and FUSE mounts answer EINVAL where a folder is to be forced to disk. The files are there.
#[test]
fn a_file_system_that_cannot_force_folders_is_no_full_disk() {
    let whole = Place::new(SMALL);
    whole.expect(0, &["m.yaml"]);
    let place = Place::new(SMALL);
    for arguments in [
        &["m.yaml"][..],
        &["report", "runs/small"],
        &["tables", "runs/small", "--out", "tables"],
        &["compare", "runs/small", "baseline.csv", "--update"],
        &["man", "pages"],
        &["check", "runs/small"],
    ] {
        let mut command = place.harness(arguments);
        let output = command.env("RAMPART_FAULT", "nosync@1").output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {err}");
    }
    whole.expect(0, &["report", "runs/small"]);
    let networks = |place: &Place| {
        let mut files = derived(&place.path("runs/small"));
        files.retain(|(name, _)| !name.ends_with(".html"));
        files
    };
    assert_eq!(networks(&place), networks(&whole));
}

/// A file system of its own, so small that it fills up in the middle of the run. Needs leave to mount one.
#[test]
#[cfg(target_os = "linux")]
fn a_full_file_system_corrupts_nothing() {
    let whole = Place::new(SMALL);
    whole.expect(0, &["m.yaml"]);
    let expected = derived(&whole.path("runs/small"));
    let place = Place::new(SMALL);
    let script = r#"
        mkdir runs kept && mount -t tmpfs -o size=220k tmpfs runs || exit 77
        "$1" m.yaml >out 2>err; echo $? >code
        mount -o remount,size=50m runs || exit 77
        "$1" m.yaml >again 2>&1; echo $? >code-again
        cp -r runs kept
    "#;
    let program = assert_cmd::cargo::cargo_bin!("rampart");
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(program);
    let status = command.current_dir(place.path("")).stderr(Stdio::null()).status();
    if !status.is_ok_and(|it| it.success()) {
        eprintln!("skipped: this machine does not let its user mount a file system");
        return;
    }
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    assert_eq!(read("code").trim(), "1", "{}", read("err"));
    assert!(
        read("err").contains("runs/small/") && read("err").contains("No space left"),
        "{}",
        read("err")
    );
    assert_eq!(read("code-again").trim(), "0", "{}", read("again"));
    assert_eq!(derived(&place.path("kept/runs/small")), expected);
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_nobody_takes_is_an_error() {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml", "--filter", "attack=natural"]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let program = assert_cmd::cargo::cargo_bin!("rampart");
    let mut command = Command::new(program);
    command.args(["tables", "runs/small"]).current_dir(place.path(""));
    let output = command
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("No space left"));
    place.expect(0, &["tables", "runs/small"]);
}

/// Both signals keep where a cell stands, in a training and in an evaluation, and say so.
#[test]
#[cfg(unix)]
fn signals_keep_what_is_done() {
    let matrix = SMALL
        .replace("epochs: 2", "epochs: 20")
        .replace("steps: 3", "steps: 60");
    let whole = Place::new(&matrix);
    whole.expect(0, &["m.yaml"]);
    let expected = derived(&whole.path("runs/small"));
    for (signal, cell) in [("-TERM", "natural-s0"), ("-INT", "natural-s0-best-pgd-60")] {
        // The cell may end before the signal comes, on a machine that has much to do.
        let place = (0..10).find_map(|_| interrupted(&matrix, signal, cell));
        let place = place.unwrap_or_else(|| panic!("{signal} never came in time"));
        // Unfinished, and nothing else is wrong with it.
        let (out, _) = place.expect(3, &["check", "runs/small"]);
        assert!(out.contains("complete: ") && !out.contains("files: "), "{out}");
        place.expect(0, &["m.yaml"]);
        assert_eq!(derived(&place.path("runs/small")), expected);
        place.expect(0, &["check", "runs/small"]);
    }
}

/// A run that a signal interrupted while this cell kept its place in a file.
#[cfg(unix)]
fn interrupted(matrix: &str, signal: &str, cell: &str) -> Option<Place> {
    let place = Place::new(matrix);
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rampart"));
    // Saved all the time, so that it is seen where the program is.
    command.args([
        "m.yaml",
        "--jobs",
        "1",
        "--evaluation-batch",
        "2",
        "--checkpoint-every",
        "0",
    ]);
    command
        .current_dir(place.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let cells = place.path("runs/small/cells");
    let there = || {
        let cells = std::fs::read_dir(&cells).into_iter().flatten().flatten();
        // A cell at work lies in a folder whose name goes on with a dot and its process.
        let at_work = |it: &Path| {
            let name = it.file_name().unwrap_or_default().to_string_lossy();
            name.split('.').next().is_some_and(|name| name.ends_with(cell))
        };
        cells
            .map(|it| it.path())
            .any(|it| at_work(&it) && it.join("resume.safetensors").exists())
    };
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{cell} is not saved");
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    if !sent.success() || output.status.code() == Some(0) || !there() {
        return None;
    }
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(130), "{out}");
    assert!(
        out.contains("interrupted; run the same command again to continue"),
        "{out}"
    );
    Some(place)
}
