//! A byte that changes in any file of a run is noticed, and what is computed again is the same.
//!
//! `RAMPART_FLIPS=all` changes each file alone, at several places.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, SMALL, bytes, derived, everything};

/// Places in a file: both ends, the middle, and some between.
fn places(length: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..8).map(|eighth| eighth * length / 8).collect();
    places.push(length - 1);
    places.dedup();
    places
}

fn flip(file: &Path, place: usize) {
    let mut bytes = bytes(file);
    bytes[place] ^= if place.is_multiple_of(2) { 1 } else { 0x80 };
    std::fs::write(file, bytes).unwrap();
}

/// The files of a run that rules speak of, with what they hold.
fn contents(run: &Path) -> Vec<(String, Vec<u8>)> {
    let names = everything(run).into_iter().filter(|it| !it.starts_with('.'));
    names.map(|name| (name.clone(), bytes(&run.join(name)))).collect()
}

/// What `check` has against a run.
fn breaches(place: &Place) -> (i32, String) {
    let (code, out, err) = place.run(&["check", "runs/small", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}\n{err}"));
    let rules = report["rules"].as_array().unwrap().iter();
    let texts = rules.flat_map(|rule| rule["breaches"].as_array().cloned().unwrap_or_default());
    (code, texts.map(|it| it.as_str().unwrap().to_string() + "\n").collect())
}

#[test]
fn a_flipped_byte_in_any_file_is_noticed() {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml"]);
    let run = place.path("runs/small");
    let (out, _) = place.expect(0, &["check", "runs/small"]);
    assert!(out.contains("every rule is kept"), "{out}");
    let hidden: Vec<String> = everything(&run)
        .into_iter()
        .filter(|it| it.contains("/.") || it.starts_with('.'))
        .collect();
    assert!(hidden.iter().all(|it| it == ".lock"), "{hidden:?}");
    let files = contents(&run);
    assert!(
        files.len() > 50 && files.iter().any(|(name, _)| name == "manifest.json"),
        "{}",
        files.len()
    );

    let mut noticed = 0;
    // The manifest, and one file of each kind, alone; or all of them.
    let all = std::env::var("RAMPART_FLIPS").is_ok_and(|it| it == "all");
    let mut kinds = Vec::new();
    for (name, good) in &files {
        let kind = name.rsplit('/').next().unwrap().to_string();
        let first = !kinds.contains(&kind) && name != "manifest.json";
        kinds.push(kind);
        let places = match (all || name == "manifest.json", first) {
            (true, _) => places(good.len()),
            (false, true) => vec![good.len() / 2],
            (false, false) => vec![],
        };
        for at in places {
            flip(&run.join(name), at);
            let (code, breaches) = breaches(&place);
            assert_eq!(code, 6, "byte {at} of {name}");
            assert!(breaches.contains(name.as_str()), "byte {at} of {name}: {breaches}");
            std::fs::write(run.join(name), good).unwrap();
            noticed += 1;
        }
    }
    // All files but the manifest at once; each must be named.
    for round in 0..9 {
        let others = || files.iter().filter(|(name, _)| name != "manifest.json");
        for (name, good) in others() {
            let places = places(good.len());
            flip(&run.join(name), places[round % places.len()]);
        }
        let (code, breaches) = breaches(&place);
        assert_eq!(code, 6);
        for (name, good) in others() {
            assert!(
                breaches.contains(&format!("{name} has changed since it was written")),
                "{name}: {breaches}"
            );
            std::fs::write(run.join(name), good).unwrap();
            noticed += 1;
        }
    }
    // Missing and foreign files, too.
    let (name, good) = &files[files.len() / 2];
    std::fs::remove_file(run.join(name)).unwrap();
    assert!(breaches(&place).1.contains(&format!("{name} is missing")));
    std::fs::write(run.join(name), good).unwrap();
    std::fs::write(run.join("tables/more.md"), "better").unwrap();
    assert!(breaches(&place).1.contains("tables/more.md is no file of this run"));
    std::fs::remove_file(run.join("tables/more.md")).unwrap();
    place.expect(0, &["check", "runs/small"]);
    eprintln!("{noticed} flipped bytes in {} files, each noticed", files.len());
}

/// Results that were changed together with every digest still break the rules that know what they mean.
#[test]
fn what_does_not_follow_from_the_matrix_is_noticed() {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml", "--filter", "attack=natural"]);
    let (out, _) = place.expect(3, &["check", "runs/small"]);
    assert!(out.contains("complete: ") && out.contains("was not started"), "{out}");
    assert!(out.contains("not finished; no rule is broken"), "{out}");
    place.expect(0, &["m.yaml"]);
    // The outcomes of one evaluation as those of another, with its own rows.
    let cells = place.cells("small", "natural-s0-best-fgsm");
    let outcomes = results::read_outcomes(&cells[0].join("outcomes.parquet")).unwrap();
    let rows = results::read_rows(&cells[0].join("rows.json")).unwrap();
    let mut better = outcomes.clone();
    let wrong = better.iter_mut().find(|it| !it.correct).expect("FGSM fools a network");
    (wrong.correct, wrong.predicted) = (true, wrong.label);
    results::write_cell(&cells[0], &rows, &better, &[]).unwrap();
    let (code, found) = breaches(&place);
    assert_eq!(code, 6);
    assert!(found.contains("the row does not count its outcomes"), "{found}");
    assert!(
        found.contains("per_example.parquet does not follow from the cells"),
        "{found}"
    );
    // And computed again, it is otherwise.
    let verify = [
        "verify",
        "runs/small",
        "--filter",
        "defense=natural",
        "--filter",
        "attack=fgsm",
        "--cells",
        "all",
    ];
    let (out, _) = place.expect(6, &verify);
    assert!(
        out.contains("outcomes.parquet differs: 1 of 40 images have a different class"),
        "{out}"
    );
    // A cell that is computed again is right again.
    std::fs::remove_dir_all(&cells[0]).unwrap();
    place.expect(0, &["m.yaml"]);
    place.expect(0, &["check", "runs/small"]);
    let (out, _) = place.expect(0, &["verify", "runs/small", "--cells", "2"]);
    assert!(out.contains("0 of ") && out.contains("the same bytes"), "{out}");
    let (out, _) = place.expect(0, &["verify", "runs/small", "--keep-trainings", "--cells", "all"]);
    assert!(out.contains("taken from the run"), "{out}");
    place.expect(2, &["verify", "runs/small", "--cells", "0"]);
    place.expect(2, &["check", "m.yaml"]);
}

/// A run that was killed is not finished, which is something else than damage, in text, in JSON and in the exit code.
#[test]
#[cfg(unix)]
fn not_finished_is_not_broken() {
    let state = |place: &Place, code: i32| {
        let (out, _) = place.expect(code, &["check", "runs/small", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        report["state"].as_str().unwrap().to_string()
    };
    let long = SMALL.replace("epochs: 2", "epochs: 20");
    let killed = (0..10).find_map(|_| killed_in_training(&long, &Path::exists));
    let (place, _) = killed.expect("killed in time");
    let (out, _) = place.expect(3, &["check", "runs/small"]);
    assert!(
        out.contains("manifest.json is missing") && out.contains("not finished; no rule is broken"),
        "{out}"
    );
    assert_eq!(state(&place, 3), "unfinished");
    place.expect(0, &["m.yaml"]);
    assert_eq!(state(&place, 0), "complete");

    // The plan grows, and its second run is killed as well.
    std::fs::write(
        place.path("m.yaml"),
        long.replace("networks:", "seeds: [0, 1]\nnetworks:"),
    )
    .unwrap();
    assert!(
        (0..10).any(|_| kill_in_training(&place, &Path::exists).is_some()),
        "killed in time"
    );
    let (out, _) = place.expect(3, &["check", "runs/small"]);
    assert!(out.contains("by an invocation without an end"), "{out}");
    // Damage is noticed all the same.
    let cells = place.cells("small", "natural-s0-best-fgsm");
    let rows = cells[0].join("rows.json");
    let good = bytes(&rows);
    flip(&rows, good.len() / 2);
    assert_eq!(state(&place, 6), "broken");
    std::fs::write(&rows, good).unwrap();
    place.expect(0, &["m.yaml"]);
    assert_eq!(state(&place, 0), "complete");

    // An invocation that ended has written its manifest.
    std::fs::remove_file(place.path("runs/small/manifest.json")).unwrap();
    assert_eq!(state(&place, 6), "broken");
}

/// The files of an unfinished run notice it as well: the next run says so, begins that cell anew and ends at the same.
#[test]
#[cfg(unix)]
fn a_flipped_byte_in_an_unfinished_run_is_noticed() {
    let long = SMALL.replace("epochs: 2", "epochs: 20");
    let whole = Place::new(&long);
    whole.expect(0, &["m.yaml"]);
    let expected = derived(&whole.path("runs/small"));
    for at in [0, 200, 0x1000] {
        // The training may end before it is killed, on a machine that has much to do.
        let (place, file) = (0..10)
            .find_map(|_| killed_in_training(&long, &Path::exists))
            .expect("killed in time");
        flip(&file, at.min(bytes(&file).len() - 1));
        let (_, err) = place.expect(0, &["m.yaml"]);
        assert!(
            err.contains("resume.safetensors") && err.contains("starts again"),
            "{err}"
        );
        assert_eq!(derived(&place.path("runs/small")), expected);
    }
}

/// A best checkpoint that the save does not name is never used: here one whose file has changed since, as if it came from
/// epochs after the save that the resumed training computes otherwise.
#[test]
#[cfg(unix)]
fn a_best_checkpoint_that_is_not_the_saves_is_not_used() {
    // At this rate no epoch is better than the first, so nothing would overwrite a wrong file.
    let long = SMALL
        .replace("epochs: 2", "epochs: 30")
        .replace("rate: 0.05", "rate: 1.0e-9");
    let whole = Place::new(&long);
    whole.expect(0, &["m.yaml"]);
    let expected = derived(&whole.path("runs/small"));
    let best_files = |folder: &Path| -> Vec<PathBuf> {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let is_best = |it: &PathBuf| {
            it.file_name()
                .is_some_and(|it| it.to_string_lossy().starts_with("best"))
        };
        files.map(|it| it.path()).filter(is_best).collect()
    };
    let names_a_best = |save: &Path| {
        let there = std::fs::read(save).unwrap_or_default();
        !best_files(save.parent().unwrap()).is_empty() && there.windows(8).any(|it| it == b"best\\\":{")
    };
    for missing in [false, true] {
        let killed = (0..10).find_map(|_| killed_in_training(&long, &names_a_best));
        let (place, save) = killed.expect("killed in time");
        for file in best_files(save.parent().unwrap()) {
            match missing {
                true => std::fs::remove_file(file).unwrap(),
                false => flip(&file, bytes(&file).len() - 5),
            }
        }
        let (_, err) = place.expect(0, &["m.yaml"]);
        assert!(
            err.contains("the best checkpoint so far") && err.contains("starts again"),
            "{err}"
        );
        assert_eq!(derived(&place.path("runs/small")), expected);
        place.expect(0, &["check", "runs/small"]);
    }
}

/// A run that was killed while a training kept its place in a file, and the file. It is `ready` for the kill.
#[cfg(unix)]
fn killed_in_training(matrix: &str, ready: &dyn Fn(&Path) -> bool) -> Option<(Place, PathBuf)> {
    let place = Place::new(matrix);
    let file = kill_in_training(&place, ready)?;
    Some((place, file))
}

/// The same for a run that may have begun before.
#[cfg(unix)]
fn kill_in_training(place: &Place, ready: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rampart"));
    command
        .args(["m.yaml", "--jobs", "1", "--checkpoint-every", "0"])
        .current_dir(place.path(""));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let file = loop {
        assert!(begun.elapsed() < Duration::from_secs(120), "nothing is saved");
        let cells = std::fs::read_dir(place.path("runs/small/cells"))
            .into_iter()
            .flatten()
            .flatten();
        let mut files = cells.map(|it| it.path().join("resume.safetensors"));
        if let Some(file) = files.find(|it| ready(it)) {
            break file;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    ready(&file).then_some(file)
}
