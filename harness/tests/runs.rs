//! Whole runs, as a user sees them.

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Place, SMALL, bytes};

#[test]
fn one_command_leaves_tables_and_a_second_computes_nothing() {
    let place = Place::new(SMALL);
    let (out, _) = place.expect(0, &["m.yaml"]);
    for part in ["PGD-3", "FGSM", "Standard", "Natural", "11 cells computed"] {
        assert!(out.contains(part), "`{part}` is not in:\n{out}");
    }
    let run = place.path("runs/small");
    for file in [
        "results.parquet",
        "results.csv",
        "timings.parquet",
        "per_example.parquet",
        "matrix.yaml",
    ] {
        assert!(run.join(file).is_file(), "{file}");
    }
    for table in ["white-box", "black-box"] {
        for extension in ["csv", "md", "tex"] {
            assert!(
                run.join(format!("tables/{table}.{extension}")).is_file(),
                "{table}.{extension}"
            );
        }
    }
    let before = bytes(&run.join("results.parquet"));
    let (again, _) = place.expect(0, &["m.yaml"]);
    assert!(again.contains("0 cells computed, 11 kept from before"), "{again}");
    assert_eq!(before, bytes(&run.join("results.parquet")));

    let (tables, _) = place.expect(0, &["tables", "runs/small"]);
    assert!(out.contains(tables.trim()), "the same tables:\n{tables}");
    let (csv, _) = place.expect(0, &["tables", "runs/small", "--format", "csv"]);
    assert!(csv.contains("white-box"), "{csv}");
    let (latex, _) = place.expect(0, &["tables", "runs/small", "--format", "latex"]);
    assert!(latex.contains("\\toprule"), "{latex}");
}

#[test]
fn jobs_threads_and_pieces_change_no_byte() {
    let (whole, other) = (Place::new(SMALL), Place::new(SMALL));
    whole.expect(0, &["m.yaml", "--threads", "2"]);
    other.expect(0, &["m.yaml", "--filter", "attack=fgsm", "--threads", "1"]);
    other.expect(0, &["m.yaml", "--jobs", "3"]);
    for file in [
        "results.parquet",
        "results.csv",
        "per_example.parquet",
        "tables/white-box.csv",
    ] {
        let file = format!("runs/small/{file}");
        assert_eq!(bytes(&whole.path(&file)), bytes(&other.path(&file)), "{file}");
    }
    for (a, b) in whole.cells("small", "").iter().zip(other.cells("small", "")) {
        for checkpoint in ["best.safetensors", "last.safetensors", "history.jsonl"] {
            if a.join(checkpoint).exists() {
                assert_eq!(
                    bytes(&a.join(checkpoint)),
                    bytes(&b.join(checkpoint)),
                    "{}",
                    a.display()
                );
            }
        }
    }
}

/// The run is killed while it trains; the next one goes on and ends at the same bits.
#[test]
fn a_killed_run_resumes() {
    let long = SMALL.replace("epochs: 2", "epochs: 60");
    let (whole, killed) = (Place::new(&long), Place::new(&long));
    whole.expect(0, &["m.yaml"]);

    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("rampart"));
    command
        .args(["m.yaml"])
        .current_dir(killed.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    while !killed.path("runs/small/cells").exists() || killed.cells("small", "").is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing began");
        std::thread::sleep(Duration::from_millis(5));
    }
    // While it works, nobody may work on anything else there.
    let (_, err) = killed.expect(2, &["m.yaml", "--set", "recipe.epochs=2"]);
    assert!(err.contains("another run") && err.contains("--out"), "{err}");
    child.kill().unwrap();
    child.wait().unwrap();

    killed.expect(0, &["m.yaml"]);
    for file in ["results.parquet", "per_example.parquet"] {
        let file = format!("runs/small/{file}");
        assert_eq!(bytes(&whole.path(&file)), bytes(&killed.path(&file)), "{file}");
    }
}

/// An interrupted run says so, keeps its place in the middle of an epoch with all that MMA remembers of
/// each example, and goes on from there.
#[test]
#[cfg(unix)]
fn an_interrupt_is_not_a_failure() {
    let long = SMALL
        .replace("epochs: 2", "epochs: 40")
        .replace("- natural\n", "- { name: mma, steps: 3 }\n");
    let (whole, stopped) = (Place::new(&long), Place::new(&long));
    whole.expect(0, &["m.yaml"]);
    // When the place of each cell at work was last kept.
    let places = || -> Vec<_> {
        if !stopped.path("runs/small/cells").exists() {
            return Vec::new();
        }
        let kept = stopped.cells("small", "").into_iter();
        kept.filter_map(|cell| std::fs::metadata(cell.join("resume.safetensors")).ok()?.modified().ok())
            .collect()
    };
    for _ in 0..3 {
        let before = places();
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("rampart"));
        // Kept after every step, so that the first is seen.
        command.args(["m.yaml", "--jobs", "1", "--checkpoint-every", "0"]);
        command.current_dir(stopped.path(""));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while places().iter().all(|kept| before.contains(kept)) {
            if begun.elapsed() > Duration::from_secs(120) {
                child.kill().unwrap();
                panic!("no training got further");
            }
            assert_eq!(child.try_wait().unwrap(), None, "it ended before it was interrupted");
            std::thread::sleep(Duration::from_millis(1));
        }
        let kill = std::process::Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap();
        assert!(kill.success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
    let begun = stopped
        .cells("small", "")
        .into_iter()
        .any(|cell| cell.join("resume.safetensors").exists());
    assert!(begun, "no training was interrupted");
    stopped.expect(0, &["m.yaml"]);
    for file in ["results.parquet", "per_example.parquet"] {
        let file = format!("runs/small/{file}");
        assert_eq!(bytes(&whole.path(&file)), bytes(&stopped.path(&file)), "{file}");
    }
}

#[test]
fn a_diverged_training_is_a_failure_and_not_ten_percent() {
    let hot = "{ name: standard, recipe: { optimizer: { rate: 1e30 } } }";
    let place = Place::new(&SMALL.replace("{ name: standard, attack: { steps: 2 } }", hot));
    let (out, err) = place.expect(3, &["m.yaml"]);
    assert!(err.contains("diverged") && err.contains("learning rate"), "{err}");
    let row = out
        .lines()
        .find(|line| line.contains("Standard"))
        .expect("a row of the failed defense");
    assert!(row.contains("failed") && !row.contains("10.0"), "{row}");
    let row = out
        .lines()
        .find(|line| line.contains("Natural") && line.contains('.'))
        .expect("a finished row");
    assert!(!row.contains("failed"), "{row}");
    let csv = String::from_utf8(bytes(&place.path("runs/small/results.csv"))).unwrap();
    assert!(
        csv.lines()
            .any(|line| line.contains("failed") && line.contains("diverged")),
        "{csv}"
    );
    // It would diverge again, so it is not tried again.
    let (out, _) = place.expect(3, &["m.yaml"]);
    assert!(out.contains("0 cells computed") && out.contains("--force"), "{out}");
    // What is asked of it later has failed with it.
    let more = "attacks=[fgsm, { name: pgd, steps: 3, step_size: 0.05 }, mi-fgsm]";
    let (out, _) = place.expect(3, &["m.yaml", "--set", more]);
    assert!(
        out.contains("standard-s0-best-mi-fgsm: digits-tiny-cnn-standard-s0 failed: training diverged"),
        "{out}"
    );
    assert!(out.contains("1 cells computed"), "{out}");
    // The finished cells are as they were, and the mended one is computed alone.
    let (out, _) = place.expect(
        0,
        &["m.yaml", "--replace", "--set", "defenses[1].recipe.optimizer.rate=0.01"],
    );
    assert!(out.contains("5 cells computed, 6 kept from before"), "{out}");
}

#[test]
fn fail_fast_stops_at_the_first_failure() {
    let place = Place::new(&SMALL.replace("rate: 0.05", "rate: 1e30"));
    let (out, _) = place.expect(3, &["m.yaml", "--fail-fast"]);
    assert!(out.contains("0 cells computed"), "{out}");
}

#[test]
fn damaged_checkpoints_are_noticed() {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml"]);
    let before = bytes(&place.path("runs/small/results.parquet"));
    let checkpoint = place
        .cells("small", "natural-s0")
        .into_iter()
        .map(|cell| cell.join("best.safetensors"));
    let checkpoint = checkpoint
        .into_iter()
        .find(|file| file.exists())
        .expect("a training's cell");
    let good = bytes(&checkpoint);

    // Truncated: made anew, with a warning.
    std::fs::write(&checkpoint, &good[..good.len() / 2]).unwrap();
    let (_, err) = place.expect(0, &["m.yaml"]);
    assert!(err.contains("best.safetensors does not have the size"), "{err}");
    assert_eq!(good, bytes(&checkpoint));

    // One bit of another value: an evaluation that needs it refuses it.
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&checkpoint, &flipped).unwrap();
    for cell in place.cells("small", "natural-s0-best-fgsm") {
        std::fs::remove_dir_all(cell).unwrap();
    }
    let (_, err) = place.expect(3, &["m.yaml"]);
    assert!(
        err.contains("best.safetensors has changed since it was written") && err.contains("delete"),
        "{err}"
    );
    // So does one who takes the network elsewhere.
    let export = [
        "export",
        "runs/small",
        "--filter",
        "defense=natural",
        "--filter",
        "seed=0",
    ];
    let export = [
        &export[..],
        &["--filter", "checkpoint=best", "--out", "net.safetensors"],
    ]
    .concat();
    let (_, err) = place.expect(6, &export);
    assert!(
        err.contains("best.safetensors has changed since it was written"),
        "{err}"
    );
    assert!(!place.path("net.safetensors").exists());
    std::fs::write(&checkpoint, &good).unwrap();
    place.expect(0, &export);
    place.expect(0, &["m.yaml"]);
    assert_eq!(before, bytes(&place.path("runs/small/results.parquet")));
}

/// A disk that takes no more bytes: here, a limit on the size of files.
#[test]
#[cfg(unix)]
fn a_full_disk_is_named_and_loses_nothing() {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml", "--filter", "defense=natural"]);
    let before = place
        .cells("small", "natural")
        .iter()
        .map(|it| bytes(&it.join("status.json")))
        .collect::<Vec<_>>();
    let program = assert_cmd::cargo::cargo_bin!("rampart");
    let script = format!("trap '' XFSZ; ulimit -f 4; exec {} m.yaml", program.display());
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(place.path(""))
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{err}");
    assert!(err.contains("cannot write") && err.contains("File too large"), "{err}");
    let after = place
        .cells("small", "natural")
        .iter()
        .map(|it| bytes(&it.join("status.json")))
        .collect::<Vec<_>>();
    assert_eq!(before, after);
    place.expect(0, &["m.yaml"]);
}

#[test]
fn a_plan_counts_and_says_what_is_done() {
    let place = Place::new(SMALL);
    let (out, _) = place.expect(0, &["plan", "m.yaml"]);
    assert!(out.contains("11 cells, 11 to compute") && out.contains("new"), "{out}");
    // Natural training: 100 images × 2 epochs, one pass each way.
    let natural = out
        .lines()
        .find(|line| line.contains("train") && line.contains("natural-s0"))
        .unwrap();
    assert!(natural.matches("200").count() >= 2, "{natural}");
    place.expect(0, &["m.yaml", "--filter", "attack=natural"]);
    let (out, _) = place.expect(0, &["plan", "m.yaml", "--json"]);
    let cells: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
    let done = cells.iter().filter(|cell| cell["state"] == "done").count();
    assert_eq!((cells.len(), done), (11, 4), "{out}");
}

#[test]
fn lists_and_schema_cover_every_method() {
    let place = Place::new(SMALL);
    for (kind, names) in [
        (
            "attacks",
            vec![
                "fgsm",
                "pgd",
                "cw",
                "mi-fgsm",
                "di-fgsm",
                "ti-fgsm",
                "natural",
                "apgd",
                "apgd-t",
                "fab",
                "square",
                "auto-attack",
                "spsa",
            ],
        ),
        (
            "defenses",
            vec!["natural", "standard", "alp", "clp", "trades", "mma", "mart", "dynamic"],
        ),
        ("models", vec!["small-cnn", "lenet5", "resnet18", "wrn-D-K", "tiny-cnn"]),
        (
            "datasets",
            vec!["digits", "mnist", "fashion-mnist", "cifar10", "cifar100"],
        ),
    ] {
        let (table, _) = place.expect(0, &["ls", kind]);
        let (json, _) = place.expect(0, &["ls", kind, "--json"]);
        let items: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        for name in names {
            assert!(
                table.contains(name) && items.iter().any(|it| it["name"] == name),
                "{kind}: {name}"
            );
        }
    }
    let (schema, _) = place.expect(0, &["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let defenses = schema["$defs"]["defense"]["anyOf"].as_array().unwrap();
    let trades = defenses
        .iter()
        .find(|it| it["properties"]["name"]["const"] == "trades")
        .unwrap();
    assert!(trades["properties"]["beta"].is_object(), "{trades}");
}

#[test]
fn an_attack_may_see_a_part_of_the_images() {
    let place = Place::new(&SMALL.replace("steps: 3,", "steps: 3, limit: 15,"));
    let (out, _) = place.expect(0, &["m.yaml"]);
    assert!(out.contains("40 test images (PGD-3 on 15)"), "{out}");
    let rows = results::read_rows(&place.path("runs/small/results.parquet")).unwrap();
    for row in &rows {
        let n = if row.attack == "PGD-3" { 15 } else { 40 };
        assert_eq!(row.n, Some(n), "{row:?}");
    }
    // Every one of them is among the images of the others.
    let outcomes = results::read_outcomes(&place.path("runs/small/per_example.parquet")).unwrap();
    let of = |attack: &str| {
        let cells = rows.iter().filter(|row| row.attack == attack).map(|row| &row.cell);
        let cells: Vec<_> = cells.collect();
        let seen = outcomes
            .iter()
            .filter(|it| cells.contains(&&it.cell))
            .map(|it| it.example);
        seen.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(of("PGD-3").is_subset(&of("FGSM")) && of("PGD-3").len() == 15);
    place.expect(0, &["check", "runs/small"]);
}

#[test]
fn flags_lay_over_the_matrix() {
    let place = Place::new(SMALL);
    let (out, _) = place.expect(0, &["m.yaml", "--limit", "30", "--seed", "7", "--set", "name=other"]);
    assert!(out.contains("30"), "{out}");
    let rows = results::read_rows(&place.path("runs/other/results.parquet")).unwrap();
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|row| (row.seed, row.n) == (7, Some(30))), "{rows:?}");
}

/// An error message that nobody reads is lost, and its exit code is not.
#[test]
#[cfg(unix)]
fn a_closed_stderr_keeps_the_exit_code() {
    let place = Place::new(SMALL);
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("rampart"));
    command.args(["validate", "nowhere.yaml"]).current_dir(place.path(""));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = command.stdout(Stdio::null()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(2));
}
