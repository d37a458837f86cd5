//! Several processes at work on one run.

mod common;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Place, SMALL, bytes};

/// Every table of a run but the timings.
const TABLES: &[&str] = &[
    "results.parquet",
    "results.csv",
    "per_example.parquet",
    "tables/white-box.csv",
    "tables/black-box.md",
];

#[track_caller]
fn same(one: &Place, other: &Place) {
    for file in TABLES {
        let file = format!("runs/small/{file}");
        assert_eq!(bytes(&one.path(&file)), bytes(&other.path(&file)), "{file}");
    }
    for (a, b) in one.cells("small", "").iter().zip(other.cells("small", "")) {
        assert_eq!(a.file_name(), b.file_name());
        for checkpoint in ["best.safetensors", "last.safetensors", "history.jsonl"] {
            let (a, b) = (a.join(checkpoint), b.join(checkpoint));
            if a.exists() {
                assert_eq!(bytes(&a), bytes(&b), "{}", a.display());
            }
        }
    }
}

fn start(place: &Place, arguments: &[&str]) -> Child {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("rampart"));
    command.args(arguments).current_dir(place.path(""));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits for the end; returns stdout and stderr.
#[track_caller]
fn end(child: Child) -> (String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "stdout:\n{out}\nstderr:\n{err}");
    (out, err)
}

/// The number before ` cells computed`.
fn computed(out: &str) -> u64 {
    let line = out
        .lines()
        .find(|line| line.contains(" cells computed"))
        .expect("a summary");
    line.split_once(' ').unwrap().0.parse().unwrap()
}

fn until(what: &str, reached: impl Fn() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < Duration::from_secs(120), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn four_processes_give_the_bytes_of_one_and_compute_every_cell_once() {
    let (one, many) = (Place::new(SMALL), Place::new(SMALL));
    one.expect(0, &["m.yaml"]);
    let racers: Vec<Child> = (0..4).map(|_| start(&many, &["m.yaml", "--jobs", "2"])).collect();
    let outs: Vec<String> = racers.into_iter().map(|it| end(it).0).collect();
    assert_eq!(outs.iter().map(|out| computed(out)).sum::<u64>(), 11, "{outs:?}");
    same(&one, &many);
    let run = many.path("runs/small");
    assert_eq!(
        count(&run.join("claims")) + count(&run.join("processes")),
        0,
        "nothing is left behind"
    );
}

/// One is killed while it trains; the other was waiting for that network and takes it over.
#[test]
fn a_killed_ones_cell_is_taken_over() {
    let long = SMALL.replace("epochs: 2", "epochs: 60");
    let (whole, shared) = (Place::new(&long), Place::new(&long));
    let mut victim = start(&shared, &["m.yaml", "--jobs", "2"]);
    let claims = shared.path("runs/small/claims");
    until("both trainings are claimed", || count(&claims) >= 2);
    let heir = start(&shared, &["m.yaml", "--jobs", "2"]);
    let processes = shared.path("runs/small/processes");
    until("the other is there", || count(&processes) >= 2);
    std::thread::sleep(Duration::from_millis(200));
    victim.kill().unwrap();
    victim.wait().unwrap();
    let (out, err) = end(heir);
    assert!(err.contains("works in") && err.contains("as well"), "{err}");
    assert!(!out.contains("by other processes"), "{out}");
    whole.expect(0, &["m.yaml"]);
    same(&whole, &shared);
    assert_eq!(count(&claims) + count(&processes), 0, "nothing is left behind");
}

/// Token of a process on another host.
const FAR: &str = "fafafafafafafafa";

/// That process's lease on a cell.
fn lease_of_far(key: &str) -> String {
    let work = format!("{}-x.{FAR}", &key[..12]);
    serde_json::json!({ "by": FAR, "host": "far", "process": 7, "since": 0, "work": work }).to_string()
}

/// A cell that a process on another host has leased, which has been silent ever since.
#[test]
fn a_silent_hosts_cell_is_taken_over() {
    let (whole, shared) = (Place::new(SMALL), Place::new(SMALL));
    whole.expect(0, &["m.yaml"]);
    let (plan, _) = shared.expect(0, &["plan", "m.yaml", "--json"]);
    let cells: Vec<serde_json::Value> = serde_json::from_str(&plan).unwrap();
    let key = cells[0]["key"].as_str().unwrap();
    let run = shared.path("runs/small");
    for folder in ["claims", "processes"] {
        std::fs::create_dir_all(run.join(folder)).unwrap();
    }
    let process = "{\"host\": \"far\", \"machine\": \"far\", \"process\": 7, \"since\": 0, \"plan\": null, \
                   \"alone\": false, \"locked\": true, \"stale_after\": 3}";
    std::fs::write(run.join(format!("processes/{FAR}.json")), process).unwrap();
    std::fs::write(run.join(format!("claims/{key}.1")), lease_of_far(key)).unwrap();
    let (out, err) = shared.expect(0, &["m.yaml"]);
    assert!(out.contains("11 cells computed, 0 kept"), "{out}");
    let waiting = format!("waiting for {}-x (process 7 on far)", &key[..12]);
    assert!(err.contains(&waiting), "{err}");
    same(&whole, &shared);
}

#[test]
fn a_forced_run_refuses_to_share_the_folder() {
    let long = SMALL.replace("epochs: 2", "epochs: 60");
    let place = Place::new(&long);
    let mut first = start(&place, &["m.yaml"]);
    let claims = place.path("runs/small/claims");
    until("something is claimed", || count(&claims) > 0);
    let (_, err) = place.expect(2, &["m.yaml", "--force"]);
    assert!(err.contains("another run (process") && err.contains("--force"), "{err}");
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_status_says_what_is_done_at_work_failed_and_left() {
    let place = Place::new(SMALL);
    let (_, err) = place.expect(2, &["status", "m.yaml"]);
    assert!(err.contains("m.yaml has not been run yet"), "{err}");
    place.expect(0, &["m.yaml", "--filter", "attack=fgsm"]);
    let hot = "defenses[1].recipe.optimizer.rate=1e30";
    place.expect(3, &["m.yaml", "--replace", "--set", hot, "--filter", "attack=fgsm"]);
    // A process on another host that has said nothing since, and does not have to.
    let (plan, _) = place.expect(0, &["plan", "m.yaml", "--set", hot, "--json"]);
    let cells: Vec<serde_json::Value> = serde_json::from_str(&plan).unwrap();
    let of = |state: &str| cells.iter().filter(|it| it["state"] == state).count();
    let new = cells.iter().find(|it| it["state"] == "new").unwrap();
    let run = place.path("runs/small");
    let process = "{\"host\": \"far\", \"machine\": \"far\", \"process\": 7, \"since\": 0, \"plan\": null, \
                   \"alone\": false, \"locked\": true, \"stale_after\": 120}";
    std::fs::write(run.join(format!("processes/{FAR}.json")), process).unwrap();
    let key = new["key"].as_str().unwrap();
    std::fs::write(run.join(format!("claims/{key}.1")), lease_of_far(key)).unwrap();
    let (text, _) = place.expect(0, &["status", "m.yaml"]);
    let (done, failed, left) = (of("done"), of("failed"), of("new") - 1);
    assert_eq!((done, failed, left), (4, 3, 3), "{plan}");
    let line = format!("11 cells: {done} done, 1 at work, {failed} failed, {left} left");
    assert!(text.contains(&line) && text.contains("process 7 on far"), "{text}");
    assert!(
        text.contains("failed: training diverged") && text.contains("time left: about"),
        "{text}"
    );
    let (text, _) = place.expect(0, &["status", "runs/small", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["running"][0]["name"], new["name"], "{text}");
    assert_eq!(status["failed"].as_array().unwrap().len(), failed, "{text}");
    assert!(status["seconds_left"].as_f64().unwrap() > 0.0, "{text}");
}

/// A run folder from elsewhere, damaged or malicious: nothing outside it is touched, and nothing panics.
#[test]
fn a_foreign_folder_is_harmless() {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml", "--filter", "attack=natural"]);
    let (plan, _) = place.expect(0, &["plan", "m.yaml", "--json"]);
    let cells: Vec<serde_json::Value> = serde_json::from_str(&plan).unwrap();
    let key = |state: &str| {
        cells.iter().find(|it| it["state"] == state).unwrap()["key"]
            .as_str()
            .unwrap()
    };
    let (new, done) = (key("new"), key("done"));
    let outside = place.path("precious");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "1").unwrap();
    let run = place.path("runs/small");
    let works = [
        outside.display().to_string(),
        "../../../precious".into(),
        format!("{}-é", &new[..12]),
    ];
    for (number, work) in works.iter().enumerate() {
        let lease =
            serde_json::json!({ "by": "../../precious/file", "host": "h", "process": 1, "since": 0, "work": work });
        for (key, number) in [
            (new, number + 1),
            (done, number + 1),
            ("tables", number + 1),
            ("éééééééééééé", 1),
        ] {
            std::fs::write(run.join(format!("claims/{key}.{number}")), lease.to_string()).unwrap();
        }
    }
    std::fs::write(run.join("processes/é.json"), "{}").unwrap();
    for command in [
        vec!["status", "runs/small"],
        vec!["watch", "runs/small", "--once"],
        vec!["m.yaml"],
    ] {
        place.expect(0, &command);
        assert!(outside.join("file").exists(), "{command:?}");
    }
    // A spec that names fewer cells than evaluations, or no cells at all, is invalid.
    let spec = std::fs::read_to_string(run.join("tables.json")).unwrap();
    let body = spec.rsplit_once(",\n  \"blake3\"").unwrap().0;
    let mut spec: serde_json::Value = serde_json::from_str(&format!("{body}}}")).unwrap();
    for names in [
        vec!["0123456789ab-x"],
        vec!["éééééééééééé"; 11],
        vec!["../../precious"; 11],
    ] {
        spec["cells"] = names.into();
        std::fs::write(run.join("tables.json"), results::seal::json::to_text(&spec).unwrap()).unwrap();
        for command in [vec!["status", "runs/small"], vec!["watch", "runs/small", "--once"]] {
            let (code, _, err) = place.run(&command);
            assert!(
                matches!(code, 1 | 2) && err.contains("tables.json") && !err.contains("panicked"),
                "{err}"
            );
        }
    }
}

/// Three processes work together while one after the other is killed at any moment and started again;
/// as often as needed, for `RAMPART_KILLS` kills in all.
#[test]
fn random_kills_of_any_process_do_not_change_the_bytes() {
    let kills: usize = std::env::var("RAMPART_KILLS").map_or(6, |it| it.parse().unwrap());
    let whole = Place::new(SMALL);
    whole.expect(0, &["m.yaml"]);
    let mut state = 1u32;
    let mut draw = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    let (mut killed, mut runs) = (0, 0);
    while killed < kills {
        let shared = Place::new(SMALL);
        let mut workers: Vec<Child> = (0..3).map(|_| start(&shared, &["m.yaml", "--jobs", "1"])).collect();
        runs += 1;
        // The rest of the run is left in peace.
        for _ in 0..(kills - killed).min(5) {
            std::thread::sleep(Duration::from_millis(u64::from(20 + draw(400))));
            let worker = &mut workers[draw(3) as usize];
            if worker.try_wait().unwrap().is_none() {
                worker.kill().unwrap();
                worker.wait().unwrap();
                killed += 1;
                *worker = start(&shared, &["m.yaml", "--jobs", "1"]);
            }
        }
        workers.into_iter().for_each(|it| drop(end(it)));
        same(&whole, &shared);
        let run = shared.path("runs/small");
        assert_eq!(count(&run.join("processes")), 0, "everybody has left");
        let cells = shared.cells("small", "");
        assert!(cells.iter().all(|it| it.join("status.json").exists()), "{cells:?}");
    }
    eprintln!("{killed} processes killed in {runs} runs");
}
