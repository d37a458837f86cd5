//! How tables and figures look, as a matrix and the command line ask.

mod common;

use common::{Place, SMALL, bytes};

/// Two tables of one kind; three weights; both checkpoints.
fn matrix() -> String {
    SMALL
        .replace(
            "attacks:\n  - fgsm",
            "  - { name: mart, lambda: 0.5, label: MART 0.5, attack: { steps: 2 } }\n  \
               - { name: mart, lambda: 1, label: MART 1, attack: { steps: 2 } }\n  \
               - { name: mart, lambda: 5, label: MART 5, attack: { steps: 2 } }\nattacks:\n  - fgsm",
        )
        .replace("transfer:", "checkpoints: [best, last]\ntransfer:")
        .replace(
            "tables: [white-box, black-box]",
            "tables: [{ name: summary, style: interval }, { name: summary, form: long, against: natural }]",
        )
}

#[test]
fn tables_look_as_they_are_asked_to_and_figures_lie_beside_them() {
    let place = Place::new(&matrix());
    let (out, _) = place.expect(0, &["m.yaml"]);
    for part in [
        "| defense ",
        "| mean ",
        "| 95% interval ",
        "\\* significantly different from Natural",
        "†",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let run = |file: &str| place.path(&format!("runs/small/tables/{file}"));
    for table in ["summary", "summary-2"] {
        for extension in ["md", "csv", "tex"] {
            assert!(run(&format!("{table}.{extension}")).is_file(), "{table}.{extension}");
        }
    }
    for figure in [
        "learning-robust-digits-tiny-cnn",
        "learning-natural-digits-tiny-cnn",
        "learning-loss-digits-tiny-cnn",
        "weight-digits-tiny-cnn-best-pgd-3",
        "overfitting-digits-tiny-cnn-pgd-3",
        "examples-digits-tiny-cnn-pgd-3",
    ] {
        for extension in ["svg", "csv", "tex"] {
            assert!(run(&format!("{figure}.{extension}")).is_file(), "{figure}.{extension}");
        }
    }
    let text = |file: &str| String::from_utf8(bytes(&run(file))).unwrap();
    // Two epochs of five defenses, and a mark for each; the network that others are attacked through has no curve.
    let learning = text("learning-robust-digits-tiny-cnn.csv");
    assert_eq!(learning.lines().count(), 1 + 5 * 2 + 5, "{learning}");
    // What became of four images on five networks, as the outcomes have it.
    let examples = text("examples-digits-tiny-cnn-pgd-3.csv");
    assert_eq!(examples.lines().count(), 1 + 5 * 4, "{examples}");
    let mine = place.cells("small", "natural-s0-best-pgd-3");
    let outcomes = results::read_outcomes(&mine[0].join("outcomes.parquet")).unwrap();
    let predicted: Vec<String> = outcomes[..4].iter().map(|it| it.predicted.to_string()).collect();
    let shown = examples.lines().filter(|line| line.contains(",Natural,"));
    let shown: Vec<&str> = shown.map(|line| line.split(',').nth(5).unwrap()).collect();
    assert_eq!(shown, predicted);
    let weights = text("weight-digits-tiny-cnn-best-pgd-3.csv");
    let xs: Vec<&str> = weights
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(2).unwrap())
        .collect();
    assert_eq!(xs, ["0.5", "1", "5"]);

    // What the command line asks for holds for every table, and for this call alone.
    let (_, err) = place.expect(2, &["tables", "runs/small", "--style", "plain"]);
    assert!(err.contains("--style: the long form"), "{err}");
    let plain = [
        "--style",
        "plain",
        "--form",
        "wide",
        "--bold",
        "off",
        "--against",
        "STANDARD",
    ];
    let (out, _) = place.expect(0, &[&["tables", "runs/small"], &plain[..]].concat());
    assert!(!out.contains('[') && !out.contains("**") && !out.contains('†'), "{out}");
    assert!(out.contains("\\* significantly different from Standard"), "{out}");
    let (csv, _) = place.expect(0, &[&["tables", "runs/small", "--format", "csv"], &plain[..]].concat());
    assert!(
        csv.starts_with("table,block,data,row,checkpoint,Natural,FGSM,PGD-3,"),
        "{csv}"
    );
    let (csv, _) = place.expect(0, &["tables", "runs/small", "--format", "csv"]);
    assert!(csv.starts_with("table,block,row,column,checkpoint,mean,"), "{csv}");
    place.expect(0, &["check", "runs/small"]);
    let (_, err) = place.expect(2, &["tables", "runs/small", "--against", "standart"]);
    assert!(
        err.contains("--against: no defense of this run is called `standart`"),
        "{err}"
    );
    assert!(err.contains("did you mean `Standard`?"), "{err}");

    // The matrix's own looks again.
    let (out, _) = place.expect(0, &["m.yaml"]);
    assert!(out.contains("| 95% interval ") && out.contains('†'), "{out}");
}

#[test]
fn looks_that_cannot_be_are_refused() {
    for (tables, parts) in [
        (
            "tables: [{ name: white-box, form: long, style: plain }]",
            ["`tables[0].style`", "take the form `wide`"],
        ),
        (
            "tables: [white-box, { name: white-box, against: standrad }]",
            ["`tables[1].against`", "did you mean `Standard`?"],
        ),
        (
            "tables: [{ name: white-box, style: mean }]",
            ["unknown name `mean`", "`mean-sd`, `interval`, `plain`"],
        ),
    ] {
        let place = Place::new(&SMALL.replace("tables: [white-box, black-box]", tables));
        let (_, err) = place.expect(2, &["validate", "m.yaml"]);
        for part in parts {
            assert!(err.contains(part), "{part}: {err}");
        }
    }
}
