//! What a run's folder shows is what its matrix asks for, until its owner says otherwise.

mod common;

use std::path::Path;

use common::{Place, SMALL, bytes, everything};

/// Every file of a folder with its content and the time when it was written.
fn state(folder: &Path) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
    let of = |name: String| {
        let file = folder.join(&name);
        let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
        (name, bytes(&file), modified)
    };
    everything(folder).into_iter().map(of).collect()
}

fn finished() -> Place {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml"]);
    place
}

#[test]
fn options_of_tables_and_report_hold_for_their_call() {
    let place = finished();
    let run = place.path("runs/small");
    let before = state(&run);
    let (plain, _) = place.expect(0, &["tables", "runs/small", "--style", "plain"]);
    assert!(plain.contains("White-box") && !plain.contains('['), "{plain}");
    place.expect(
        0,
        &[
            "tables",
            "runs/small",
            "--worst-of",
            "fgsm,pgd-3",
            "--form",
            "long",
            "--out",
            "mine",
        ],
    );
    let mine = std::fs::read_to_string(place.path("mine/tables/white-box.md")).unwrap();
    assert!(
        mine.contains("worst of fgsm, pgd-3") && mine.contains("95% interval"),
        "{mine}"
    );
    assert!(place.path("mine/results.csv").exists());
    place.expect(0, &["report", "runs/small", "--out", "page.html"]);
    assert!(state(&run) == before, "a file of the run was written");

    // Without options the tables are those of the matrix, in the run's folder.
    let (again, _) = place.expect(0, &["tables", "runs/small"]);
    assert!(again.contains('[') && !again.contains("worst of"), "{again}");
    place.expect(0, &["check", "runs/small"]);
    let (_, err) = place.expect(2, &["tables", "runs/small", "--out", "runs/../runs/small"]);
    assert!(err.contains("--out: this is the folder of the run itself"), "{err}");
}

#[test]
fn another_plan_replaces_nothing_unasked() {
    let place = finished();
    let run = place.path("runs/small");
    let before = state(&run);
    for change in [
        &["--set", "recipe.epochs=1"][..],
        &["--limit", "30"],
        &["--seed", "7"],
        &["--set", "attacks=[fgsm]"],
    ] {
        let (_, err) = place.expect(2, &[&["m.yaml"], change].concat());
        for part in ["holds the results of another plan", "--out", "--set name=", "--replace"] {
            assert!(err.contains(part), "{part}: {err}");
        }
        let files = state(&run);
        let changed = files.iter().filter(|file| !before.contains(file)).map(|file| &file.0);
        // Processes leave their mark while they are there.
        let changed: Vec<&String> = changed.filter(|name| !name.starts_with("processes/")).collect();
        assert!(changed.is_empty(), "{change:?}: {changed:?}");
    }

    // A part of the same plan, and a plan that has grown, are no other plan.
    place.expect(0, &["m.yaml", "--filter", "defense=natural"]);
    let (out, _) = place.expect(0, &["m.yaml", "--set", "seeds=[0,1]"]);
    assert!(out.contains("kept from before"), "{out}");

    let (out, _) = place.expect(0, &["m.yaml", "--set", "attacks=[fgsm]", "--replace"]);
    assert!(out.contains("0 cells computed"), "finished cells are used: {out}");
    let csv = std::fs::read_to_string(run.join("results.csv")).unwrap();
    assert!(!csv.contains("PGD-3"), "{csv}");
}

#[test]
fn cells_that_no_plan_needs_can_be_removed() {
    let place = finished();
    let (out, _) = place.expect(0, &["clean", "runs/small"]);
    assert!(out.contains("nothing to remove"), "{out}");
    place.expect(0, &["m.yaml", "--set", "attacks=[fgsm]", "--replace"]);
    let unneeded = place.cells("small", "pgd-3");
    assert!(!unneeded.is_empty());
    let (out, _) = place.expect(0, &["clean", "runs/small"]);
    assert!(
        unneeded
            .iter()
            .all(|cell| cell.exists() && out.contains(cell.file_name().unwrap().to_str().unwrap()))
    );
    assert!(out.contains("to remove: rampart clean runs/small --yes"), "{out}");
    let (out, _) = place.expect(0, &["clean", "runs/small", "--yes"]);
    assert!(out.contains(&format!("removed {} cells", unneeded.len())), "{out}");
    assert!(unneeded.iter().all(|cell| !cell.exists()));
    place.expect(0, &["check", "runs/small"]);
    let (out, _) = place.expect(0, &["m.yaml", "--set", "attacks=[fgsm]"]);
    assert!(out.contains("0 cells computed"), "{out}");
    let (_, err) = place.expect(2, &["clean", "elsewhere"]);
    assert!(err.contains("is not the folder of a run"), "{err}");
}
