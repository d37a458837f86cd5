//! Tables for tests: every kind of cell, one seed and three, one checkpoint and two, in every form.

use std::process::{Command, Stdio};

use results::{Checkpoint, Kind, Row, Selection};
use serde_json::{Value, json};

use crate::*;

pub(crate) fn row(place: [&str; 4], kind: Kind, checkpoint: Checkpoint, seed: u64) -> Row {
    let [dataset, network, defense, attack] = place;
    let attacked = kind != Kind::Natural;
    Row {
        cell: format!("{dataset}-{network}-{defense}-{attack}-{checkpoint}-{seed}"),
        run: "sample".to_string(),
        dataset: dataset.to_string(),
        dataset_digest: "d1ce".to_string(),
        verified: dataset != "digits",
        network: network.to_string(),
        defense: defense.to_string(),
        defense_name: defense.to_lowercase(),
        defense_version: 1,
        recipe: "default".to_string(),
        seed,
        checkpoint,
        selection: Selection::Validation,
        epoch: Some(7),
        attack: attack.to_string(),
        attack_name: attack.to_lowercase(),
        attack_version: Some(1),
        kind,
        source: (kind == Kind::Transfer).then(|| format!("natural/{network}")),
        source_checkpoint: (kind == Kind::Transfer).then_some(Checkpoint::Best),
        source_seed: (kind == Kind::Transfer).then_some(1000),
        norm: attacked.then(|| "linf".to_string()),
        epsilon: attacked.then(|| "8/255".to_string()),
        epsilon_value: attacked.then_some(8.0 / 255.0),
        config_hash: "c0ff".to_string(),
        evaluation_config: Some(evaluation_config(attack).to_string()),
        training_config: Some(training_config(network, defense).to_string()),
        code_version: "0.1.0".to_string(),
        ..Row::default()
    }
}

/// A row whose protocol is the paper's.
pub(crate) fn as_published() -> Row {
    let place = ["cifar10", "resnet18", "MART", "PGD-20"];
    row(place, Kind::WhiteBox, Checkpoint::Best, 0).with_count(10_000, 5_500)
}

/// The configuration of an attack as the paper has it.
fn evaluation_config(attack: &str) -> Value {
    let pgd = |steps: u64| {
        json!({
            "loss": "cross-entropy", "steps": steps, "step_size": "0.8/255", "start": "uniform", "restarts": 1,
        })
    };
    let (name, config) = match attack {
        "FGSM" => ("fgsm", json!({})),
        "PGD-10" => ("pgd", pgd(10)),
        "PGD-20" => ("pgd", pgd(20)),
        "PGD-100" => ("pgd", pgd(100)),
        "CW∞" => ("cw", pgd(30)),
        _ => ("natural", json!({})),
    };
    json!({
        "attack": { "name": name, "config": config },
        "threat": { "norm": "linf", "epsilon": "8/255" },
    })
}

/// The configuration of a training with the released code's recipe for this network.
fn training_config(network: &str, defense: &str) -> Value {
    let (epochs, rate, weight_decay) = if network.starts_with("wrn") {
        (90, 0.1, 0.0007)
    } else {
        (120, 0.01, 0.0035)
    };
    let attack = json!({ "epsilon": "8/255", "steps": 10, "step_size": "2/255", "start": "uniform" });
    json!({
        "dataset": { "limit": null, "validation": 1000 },
        "threat": { "norm": "linf", "epsilon": "8/255" },
        "defense": {
            "name": defense.to_lowercase(),
            "config": {
                "attack": attack, "lambda": 5.0, "beta": 6.0, "boost": "adversarial", "share": 1.0, "weighted": true,
            },
        },
        "recipe": {
            "length": { "epochs": epochs }, "batch": 128,
            "optimizer": { "name": "sgd", "rate": rate, "momentum": 0.9, "weight_decay": weight_decay },
            "schedule": { "name": "steps", "at": [75, 90, 100] },
        },
    })
}

fn column(label: &str, kind: Kind, published: Option<&str>) -> ColumnSpec {
    ColumnSpec {
        label: label.to_string(),
        attack: label.to_string(),
        kind,
        source: None,
        published: published.map(str::to_string),
    }
}

fn defense(label: &str, published: Option<&str>) -> RowSpec {
    RowSpec {
        defense: label.to_string(),
        recipe: None,
        published: published.map(str::to_string),
    }
}

fn block(dataset: &str, network: &str) -> BlockSpec {
    BlockSpec {
        label: format!("{dataset}, {network}"),
        dataset: dataset.to_string(),
        network: network.to_string(),
    }
}

fn build(spec: &TableSpec, planned: &[Planned], rows: &[Row]) -> Table {
    Table::build(spec, &ResultIndex::new(planned, rows, &[], Published::embedded())).unwrap()
}

/// All of them.
pub(crate) fn all() -> Vec<Table> {
    vec![
        white_box(),
        wide(),
        black_box(),
        long(),
        marked(None),
        marked(Some("Standard")),
    ]
}

/// Three seeds on CIFAR-10 with a failure, a gap and half-done cells; one seed on unverified data.
pub(crate) fn white_box() -> Table {
    let (spec, planned, rows) = white_box_parts();
    build(&spec, &planned, &rows)
}

/// The same in this style, after a change to each row.
pub(crate) fn changed(style: TableStyle, change: impl FnMut(&mut Row)) -> Table {
    let (mut spec, planned, mut rows) = white_box_parts();
    spec.style = style;
    rows.iter_mut().for_each(change);
    build(&spec, &planned, &rows)
}

fn white_box_parts() -> (TableSpec, Vec<Planned>, Vec<Row>) {
    let spec = TableSpec {
        id: "white-box".to_string(),
        title: "White-box robustness".to_string(),
        kind: TableKind::WhiteBox,
        blocks: vec![block("cifar10", "resnet18"), block("digits", "small-cnn")],
        rows: vec![
            defense("Standard", Some("standard")),
            defense("ALP", None),
            defense("TRADES", Some("trades")),
            defense("MART", Some("mart")),
        ],
        columns: vec![
            column("Natural", Kind::Natural, Some("natural")),
            column("FGSM", Kind::WhiteBox, Some("fgsm")),
            column("PGD-20", Kind::WhiteBox, Some("pgd20")),
            column("CW∞", Kind::WhiteBox, Some("cw")),
            column("AutoAttack", Kind::WhiteBox, None),
        ],
        checkpoints: vec![Checkpoint::Best],
        style: TableStyle::default(),
    };
    let mut rows = Vec::new();
    let mut planned = Vec::new();
    for (place, seeds, n) in [
        (("cifar10", "resnet18"), 0..3, 10_000),
        (("digits", "small-cnn"), 0..1, 400),
    ] {
        for (d, defense) in spec.rows.iter().enumerate() {
            for (a, attack) in spec.columns.iter().enumerate() {
                for seed in seeds.clone() {
                    let names = [place.0, place.1, &defense.defense, &attack.attack];
                    let row = row(names, attack.kind, Checkpoint::Best, seed);
                    planned.push(Planned::of(&row));
                    let correct = n * (84 - 10 * a as u64 + d as u64) / 100 + seed * n / 500;
                    let row = match (place.0, defense.defense.as_str(), attack.attack.as_str(), seed) {
                        (_, "ALP", "CW∞", _) => row.with_failure("loss is not finite in epoch 3"),
                        ("cifar10", "TRADES", "AutoAttack", _) => continue,
                        ("cifar10", "MART", "AutoAttack", 2) => continue,
                        ("cifar10", "MART", "CW∞", 1..) => row.with_failure("out of memory"),
                        _ => row.with_count(n, correct),
                    };
                    rows.push(row);
                }
            }
        }
    }
    (spec, planned, rows)
}

/// Best and last of three seeds.
pub(crate) fn wide() -> Table {
    let spec = TableSpec {
        id: "wide-network".to_string(),
        title: "A wide network".to_string(),
        kind: TableKind::WideNetwork,
        blocks: vec![block("cifar10", "wrn-34-10")],
        rows: vec![
            defense("Standard", Some("standard")),
            defense("TRADES", Some("trades")),
            defense("MART", Some("mart")),
        ],
        columns: vec![
            column("Natural", Kind::Natural, Some("natural")),
            column("FGSM", Kind::WhiteBox, Some("fgsm")),
            column("PGD-20", Kind::WhiteBox, Some("pgd20")),
            column("PGD-100", Kind::WhiteBox, Some("pgd100")),
            column("CW∞", Kind::WhiteBox, Some("cw")),
        ],
        checkpoints: vec![Checkpoint::Best, Checkpoint::Last],
        style: TableStyle::default(),
    };
    let mut rows = Vec::new();
    for (d, defense) in spec.rows.iter().enumerate() {
        for (a, attack) in spec.columns.iter().enumerate() {
            for checkpoint in [Checkpoint::Best, Checkpoint::Last] {
                for seed in 0..3 {
                    let names = ["cifar10", "wrn-34-10", &defense.defense, &attack.attack];
                    let mut row = row(names, attack.kind, checkpoint, seed);
                    row.selection = Selection::Test;
                    let last = u64::from(checkpoint == Checkpoint::Last);
                    rows.push(row.with_count(10_000, 8_600 - 900 * a as u64 + 70 * d as u64 - 230 * last + 31 * seed));
                }
            }
        }
    }
    build(&spec, &[], &rows)
}

/// One seed, transferred.
pub(crate) fn black_box() -> Table {
    let spec = TableSpec {
        id: "black-box".to_string(),
        title: "Black-box robustness".to_string(),
        kind: TableKind::BlackBox,
        blocks: vec![block("mnist", "lenet")],
        rows: vec![defense("MMA", Some("mma")), defense("MART", Some("mart"))],
        columns: vec![
            column("FGSM", Kind::Transfer, Some("fgsm")),
            column("PGD-20", Kind::Transfer, Some("pgd20")),
        ],
        checkpoints: vec![Checkpoint::Last],
        style: TableStyle::default(),
    };
    let mut rows = Vec::new();
    for defense in &spec.rows {
        for attack in &spec.columns {
            let names = ["mnist", "lenet", &defense.defense, &attack.attack];
            let mut row = row(names, attack.kind, Checkpoint::Last, 0);
            row.epsilon = Some("0.3".to_string());
            rows.push(row.with_count(10_000, 9_650));
        }
    }
    build(&spec, &[], &rows)
}

/// The first table in the long form.
pub(crate) fn long() -> Table {
    let (spec, planned, rows) = white_box_parts();
    let style = TableStyle {
        form: Some(Form::Long),
        ..TableStyle::default()
    };
    let id = "long".to_string();
    build(&TableSpec { id, style, ..spec }, &planned, &rows)
}

/// A comparison of two defenses of [`marked`].
pub(crate) fn pair(names: [&str; 2], seed: u64, difference: f64, p: f64, p_holm: f64) -> results::Comparison {
    results::Comparison {
        dataset: "mnist".into(),
        network: "lenet".into(),
        checkpoint: Checkpoint::Best,
        seed,
        attack: "PGD-20".into(),
        kind: Kind::WhiteBox,
        source: None,
        first: names[0].into(),
        second: names[1].into(),
        n: 1000,
        only_first: 0,
        only_second: 0,
        difference,
        p,
        p_holm,
    }
}

/// Two seeds with intervals, compared with the highest or with a defense. MART is the highest; TRADES differs from it for one seed alone,
/// Standard for both, and Dynamic has not been compared.
pub(crate) fn marked(against: Option<&str>) -> Table {
    let comparisons: Vec<results::Comparison> = [0, 1]
        .into_iter()
        .flat_map(|seed| {
            let p = if seed == 0 { 0.001 } else { 0.2 };
            [
                pair(["MART", "Standard"], seed, 6.0, 0.001, 0.003),
                pair(["MART", "TRADES"], seed, 2.0, p, 3.0 * p),
                pair(["Standard", "TRADES"], seed, -4.0, 0.002, 0.004),
            ]
        })
        .collect();
    marked_by(&comparisons, against)
}

/// The same with other comparisons.
pub(crate) fn marked_by(comparisons: &[results::Comparison], against: Option<&str>) -> Table {
    let spec = TableSpec {
        id: if against.is_some() { "against" } else { "tied" }.to_string(),
        title: "Intervals and marks".to_string(),
        kind: TableKind::WhiteBox,
        blocks: vec![block("mnist", "lenet")],
        rows: ["Standard", "TRADES", "MART", "Dynamic"]
            .map(|name| defense(name, None))
            .to_vec(),
        columns: vec![
            column("PGD-20", Kind::WhiteBox, None),
            column("worst of PGD-20, CW", Kind::WhiteBox, None),
        ],
        checkpoints: vec![Checkpoint::Best],
        style: TableStyle {
            spread: SpreadStyle::Interval,
            against: against.map(str::to_string),
            ..TableStyle::default()
        },
    };
    let mut rows = Vec::new();
    for (defense, correct) in spec.rows.iter().zip([900, 940, 960, 950]) {
        for attack in &spec.columns {
            for seed in [0, 1] {
                let names = ["mnist", "lenet", &defense.defense, &attack.attack];
                let row = row(names, attack.kind, Checkpoint::Best, seed);
                rows.push(row.with_count(1000, correct + 2 * seed));
            }
        }
    }
    let index = ResultIndex::new(&[], &rows, comparisons, Published::embedded());
    Table::build(&spec, &index).unwrap()
}

/// Compiles a document with pdflatex, or prints that there is none. Set `KEEP_LATEX` to a folder to keep the
/// pages.
#[track_caller]
pub(crate) fn compile(name: &str, text: &str) {
    let has_latex = Command::new("pdflatex").arg("--version").stdout(Stdio::null()).status();
    if has_latex.is_err() {
        eprintln!("{name}.tex was not compiled: there is no pdflatex");
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("KEEP_LATEX").map_or(temporary.path().to_path_buf(), Into::into);
    let file = format!("{name}.tex");
    std::fs::write(folder.join(&file), text).unwrap();
    // A longtable knows its widths at the second run.
    for _ in 0..1 + usize::from(text.contains("{longtable}{")) {
        let output = Command::new("pdflatex")
            .args(["-interaction=nonstopmode", "-halt-on-error", &file])
            .current_dir(&folder)
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{log}");
        assert!(!log.contains("Overfull"), "{log}");
    }
}
