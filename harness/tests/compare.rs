//! The regression gate, as CI uses it: the real program on the real matrix against the committed baseline.

mod common;

use std::path::{Path, PathBuf};

use common::{Place, bytes};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn matrix() -> String {
    std::fs::read_to_string(repository().join("matrices/ci.yaml")).unwrap()
}

fn baseline() -> String {
    repository().join("matrices/ci.baseline.csv").display().to_string()
}

/// What nobody meant to change: an attack that steps half as far, one that stops early, a defense whose weight
/// does nothing. And what anybody may change: the seeds.
#[test]
fn planted_regressions_are_caught_and_other_seeds_are_not() {
    let place = Place::new(&matrix());
    let baseline = baseline();
    // Seeds that the baseline does not hold. All runs share a folder, so a network is trained once.
    const SEEDS: &str = "seeds=[100, 101]";
    let compared = |code: i32, plant: &[&str]| {
        let mut run = vec!["m.yaml", "--replace", "--set", SEEDS];
        run.extend(plant.iter().flat_map(|it| ["--set", *it]));
        place.expect(0, &run);
        place.expect(code, &["compare", "runs/ci", &baseline]).0
    };
    let honest = compared(0, &[]);
    assert!(honest.contains("within") && !honest.contains("regressed"), "{honest}");

    let half = compared(5, &["attacks[1].step_size=0.015"]);
    let line = half.lines().find(|line| line.contains("weaker attack")).unwrap();
    assert!(line.contains("PGD") && line.contains("all 4 defenses"), "{half}");

    let early = compared(5, &["attacks[2].steps=2"]);
    let line = early.lines().find(|line| line.contains("weaker attack")).unwrap();
    assert!(line.contains("CW") && line.contains("all 4 defenses"), "{early}");

    let ignored = compared(5, &["defenses[2].beta=0"]);
    let line = ignored.lines().find(|line| line.contains("regressed")).unwrap();
    assert!(line.contains("TRADES"), "{ignored}");
}

/// A stored file of two defenses under two attacks, six seeds.
fn stored(change: impl Fn(&str, &str, u64) -> Option<u64>) -> String {
    let mut text = String::from("dataset,network,defense,checkpoint,kind,attack,seed,n,n_correct,status,error\n");
    for defense in ["A", "B"] {
        for (attack, kind) in [("Natural", "natural"), ("PGD-20", "white-box")] {
            for seed in 0..6 {
                match change(defense, attack, seed) {
                    Some(correct) => {
                        text += &format!("digits,tiny-cnn,{defense},last,{kind},{attack},{seed},500,{correct},done,\n");
                    }
                    None => {
                        text += &format!(
                            "digits,tiny-cnn,{defense},last,{kind},{attack},{seed},,,failed,\"no, \"\"it\"\" <diverged>\"\n"
                        )
                    }
                }
            }
        }
    }
    text
}

fn honest(_: &str, attack: &str, seed: u64) -> Option<u64> {
    Some(if attack == "Natural" { 450 } else { 300 } + seed % 3)
}

#[test]
fn files_are_compared_and_reports_written() {
    let place = Place::new("");
    let write = |name: &str, text: &str| std::fs::write(place.path(name), text).unwrap();
    write("before.csv", &stored(honest));
    write("same.csv", &stored(honest));
    let (out, _) = place.expect(0, &["compare", "same.csv", "before.csv"]);
    assert!(out.contains("4 cells") && out.contains("same"), "{out}");

    let worse = |defense: &str, attack: &str, seed: u64| {
        let low = defense == "B" && attack != "Natural";
        honest(defense, attack, seed).map(|n| n - if low { 10 } else { 0 })
    };
    write("worse.csv", &stored(worse));
    let (out, _) = place.expect(
        5,
        &[
            "compare",
            "worse.csv",
            "before.csv",
            "--json",
            "it.json",
            "--junit",
            "it.xml",
        ],
    );
    let row: Vec<&str> = out
        .lines()
        .find(|line| line.contains(" B "))
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(row[2..6], ["B", "PGD-20", "60.20", "58.20"], "{out}");
    let json: serde_json::Value = serde_json::from_slice(&bytes(&place.path("it.json"))).unwrap();
    assert_eq!(
        (&json["passed"], json["lines"].as_array().unwrap().len()),
        (&false.into(), 8)
    );
    let line = json["lines"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["verdict"] == "regressed")
        .unwrap();
    assert!((line["difference"].as_f64().unwrap() + 2.0).abs() < 1e-9, "{line}");
    let xml = String::from_utf8(bytes(&place.path("it.xml"))).unwrap();
    assert!(
        xml.contains("<failure type=\"regressed\"") && xml.contains("tests=\"8\""),
        "{xml}"
    );
    let (markdown, _) = place.expect(5, &["compare", "worse.csv", "before.csv", "--markdown"]);
    assert!(
        markdown.contains("| B | PGD-20 |") && markdown.contains("**regressed**"),
        "{markdown}"
    );

    // Two points are allowed everywhere, or under that attack; one and a half are not.
    place.expect(0, &["compare", "worse.csv", "before.csv", "--tolerance", "2"]);
    place.expect(
        0,
        &[
            "compare",
            "worse.csv",
            "before.csv",
            "--tolerance",
            "1",
            "--tolerance",
            "pgd-20=2",
        ],
    );
    place.expect(5, &["compare", "worse.csv", "before.csv", "--tolerance", "1.5"]);
    // The other way round it is an improvement, and more robust under every attack there is.
    let better = ["compare", "before.csv", "worse.csv", "--tolerance", "1.5"];
    assert!(place.expect(0, &better).0.contains("1 improved"));
    place.expect(5, &[&better[..], &["--strict"]].concat());
    for (tolerance, part) in [
        ("x", "not a number of points"),
        ("PGD-2=1", "did you mean `pgd-20`"),
        ("-1", "-1"),
    ] {
        let argument = format!("--tolerance={tolerance}");
        let (_, err) = place.expect(2, &["compare", "same.csv", "before.csv", &argument]);
        assert!(err.contains(part), "{err}");
    }
}

#[test]
fn what_is_missing_failed_or_new_is_named() {
    let place = Place::new("");
    let write = |name: &str, text: &str| std::fs::write(place.path(name), text).unwrap();
    write("before.csv", &stored(honest));
    write(
        "failed.csv",
        &stored(|d, a, seed| honest(d, a, seed).filter(|_| (d, a, seed) != ("A", "PGD-20", 2))),
    );
    let (out, _) = place.expect(5, &["compare", "failed.csv", "before.csv", "--junit", "it.xml"]);
    assert!(out.contains("failed: A, PGD-20: no, \"it\" <diverged>"), "{out}");
    let xml = String::from_utf8(bytes(&place.path("it.xml"))).unwrap();
    assert!(xml.contains("no, &quot;it&quot; &lt;diverged&gt;"), "{xml}");

    let fewer: String = stored(honest)
        .lines()
        .filter(|line| !line.contains(",B,"))
        .map(|line| format!("{line}\n"))
        .collect();
    write("fewer.csv", &fewer);
    let (out, _) = place.expect(5, &["compare", "fewer.csv", "before.csv"]);
    assert!(out.contains("2 missing"), "{out}");
    let (out, _) = place.expect(0, &["compare", "before.csv", "fewer.csv"]);
    assert!(out.contains("2 new"), "{out}");
    place.expect(5, &["compare", "before.csv", "fewer.csv", "--strict"]);

    // A baseline is made, renewed, and never out of a failed run.
    let (_, err) = place.expect(2, &["compare", "before.csv", "new.csv"]);
    assert!(err.contains("--update"), "{err}");
    place.expect(0, &["compare", "before.csv", "new.csv", "--update"]);
    place.expect(0, &["compare", "before.csv", "new.csv"]);
    place.expect(0, &["compare", "fewer.csv", "new.csv", "--update"]);
    place.expect(0, &["compare", "fewer.csv", "new.csv", "--strict"]);
    let (_, err) = place.expect(3, &["compare", "failed.csv", "new.csv", "--update"]);
    assert!(err.contains("has failed"), "{err}");
    let (_, err) = place.expect(2, &["compare", "fewer.csv", "new.parquet", "--update"]);
    assert!(err.contains(".csv"), "{err}");
}

#[test]
fn what_is_no_result_is_refused() {
    let place = Place::new("");
    let write = |name: &str, text: &str| std::fs::write(place.path(name), text).unwrap();
    write("good.csv", &stored(honest));
    for (name, text, part) in [
        ("empty.csv", "", "it is empty"),
        ("other.csv", "a,b\n1,2\n", "there is no `dataset`"),
        ("half.csv", "dataset,network\n<<<<<<< ours\n", "line 2"),
        ("it.parquet", "PAR1", "not a table of results"),
    ] {
        write(name, text);
        let (_, err) = place.expect(2, &["compare", "good.csv", name]);
        assert!(err.contains(part) && err.contains(name), "{err}");
    }
    let (_, err) = place.expect(2, &["compare", ".", "good.csv"]);
    assert!(err.contains("no results.parquet"), "{err}");
}

/// A reader that closes early, such as `| head`, affects neither the exit code nor the files.
#[test]
fn a_closed_output_keeps_the_regression_exit_code() {
    let place = Place::new("");
    let write = |name: &str, text: &str| std::fs::write(place.path(name), text).unwrap();
    write("before.csv", &stored(|_, _, _| Some(400)));
    write("worse.csv", &stored(|_, _, _| Some(100)));
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("rampart"))
        .current_dir(place.path(""))
        .args(["compare", "worse.csv", "before.csv", "--junit", "junit.xml"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert!(
        std::fs::read_to_string(place.path("junit.xml"))
            .unwrap()
            .contains("<failure")
    );
}
