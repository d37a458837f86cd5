//! The same matrix gives the same bytes, however it is computed.

mod common;

use common::{Place, SMALL, bytes, derived};

/// Every kind of draw: augmentation, random starts, restarts, queries, a memory of each example.
fn matrix() -> String {
    SMALL
        .replace("limit: { train: 120, test: 40 }", "limit: { train: 100, test: 26 }")
        .replace("epochs: 2", "epochs: 1")
        .replace("schedule:", "augment: [crop4, flip], schedule:")
        .replace("- { name: standard, attack: { steps: 2 } }", "- { name: mma, steps: 3 }\n  - { name: trades, attack: { steps: 2 }, recipe: { awp: {}, averaging: { decay: 0.9 } } }")
        .replace(
            "- { name: pgd, steps: 3, step_size: 0.05 }",
            "- { name: pgd, steps: 3, step_size: 0.05, start: uniform, restarts: 2 }\n  - { name: square, queries: 20 }\n  - { name: apgd-t, steps: 4 }\n  - { name: fab, steps: 4 }",
        )
        .replace("attacks: [fgsm]\ntables", "attacks: [di-fgsm]\ntables")
}

#[test]
fn threads_jobs_batches_and_stops_change_no_byte() {
    let whole = Place::new(&matrix());
    whole.expect(0, &["m.yaml", "--threads", "2", "--jobs", "1"]);
    let expected = derived(&whole.path("runs/small"));
    let ways: [&[&str]; 4] = [
        &["--threads", "1"],
        &["--threads", "2", "--jobs", "3", "--evaluation-batch", "1"],
        &[
            "--threads",
            "1",
            "--jobs",
            "2",
            "--evaluation-batch",
            "7",
            "--checkpoint-every",
            "0",
        ],
        &["--evaluation-batch", "1000"],
    ];
    for way in ways {
        let place = Place::new(&matrix());
        place.expect(0, &[&["m.yaml"], way].concat());
        assert_eq!(derived(&place.path("runs/small")), expected, "{way:?}");
    }
}

/// Results say nothing of the machine; times do, in a table of their own.
#[test]
fn results_hold_no_times_and_no_hosts() {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml"]);
    let csv = String::from_utf8(bytes(&place.path("runs/small/results.csv"))).unwrap();
    let header = csv.lines().next().unwrap();
    for word in ["second", "host", "cpu", "thread", "started", "memory", "device"] {
        assert!(!header.contains(word), "{header}");
    }
    let timings = results::read_timings(&place.path("runs/small/timings.parquet")).unwrap();
    assert_eq!(timings.len(), 11);
}

/// Whatever a processor has, the program gives results, and they pass the same rules.
#[test]
fn every_kind_of_processor_runs_it() {
    for instructions in ["portable", "avx2", "avx512"] {
        let place = Place::new(SMALL);
        let mut command = place.harness(&["m.yaml"]);
        command.env("RAMPART_INSTRUCTIONS", instructions).assert().success();
        place.expect(0, &["check", "runs/small"]);
        let manifest = String::from_utf8(bytes(&place.path("runs/small/manifest.json"))).unwrap();
        // Less than asked for where the machine has no more.
        let used = manifest.lines().find(|line| line.contains("\"instructions\"")).unwrap();
        assert!(instructions != "portable" || used.contains("portable"), "{used}");
    }
}
