//! What a masked network trips, what an honest one does not, and what tables say of it.

mod common;

use std::collections::{BTreeSet, HashMap};

use candle_core::{DType, Device, Tensor};
use common::{Place, bytes};
use results::{Flag, Kind};

/// Two honest networks, attacked in every way, and images from each to each.
const HONEST: &str = "\
name: honest
dataset: { name: digits, validation: 50, limit: { test: 120 } }
threat: { norm: linf, epsilon: 0.1 }
networks: [tiny-cnn]
recipe: { epochs: 4, batch: 32, optimizer: { name: sgd, rate: 0.05, momentum: 0.9 }, schedule: { name: constant } }
defenses:
  - natural
  - { name: standard, attack: { steps: 3 } }
attacks:
  - { name: pgd, steps: 60, step_size: 0.02, epsilon: [0.02, 0.1, 1] }
  - { name: pgd, steps: 20, step_size: 0.02 }
  - { name: cw, steps: 20, step_size: 0.02 }
  - { name: apgd, steps: 20 }
  - { name: square, queries: 100 }
transfer:
  sources: defenses
  attacks: [fgsm]
tables:
  - { name: summary, worst_of: [[PGD-20, CW]] }
  - transfer
";

const ATTACKS: [&str; 10] = [
    "--attack",
    "{ name: pgd, steps: 20, step_size: 0.02 }",
    "--attack",
    "{ name: cw, steps: 20, step_size: 0.02 }",
    "--attack",
    "{ name: square, queries: 100 }",
    "--attack",
    "{ name: pgd, steps: 40, epsilon: 1, start: none, label: unbounded }",
    "--dataset",
    "digits",
];
const NETWORK: [&str; 4] = ["--model", "tiny-cnn", "--threat=linf:0.1", "--limit=120"];

fn lines(text: &[u8]) -> Vec<String> {
    String::from_utf8(text.to_vec())
        .unwrap()
        .lines()
        .map(str::to_string)
        .collect()
}

#[test]
fn an_honest_network_has_no_flag_and_a_masked_one_has() {
    let place = Place::new(HONEST);
    let (out, _) = place.expect(0, &["m.yaml"]);
    let run = |file: &str| place.path(&format!("runs/honest/{file}"));
    let rows = results::read_rows(&run("results.parquet")).unwrap();

    // No flag in rows, in the file, or in tables.
    let raised = results::flags(&rows);
    assert_eq!(raised, [], "{out}");
    assert_eq!(lines(&bytes(&run("tables/flags.csv"))).len(), 1);
    assert!(rows.iter().all(|row| row.flags.is_none()));
    for row in &rows {
        let n = row.n.unwrap() as f64;
        assert_eq!(row.forwards_per_image, row.forwards.map(|it| it as f64 / n));
        assert_eq!(row.queries.is_some(), row.kind == Kind::Query, "{}", row.attack);
        assert_eq!(
            row.softmax_outputs.is_some(),
            row.kind == Kind::Natural,
            "{}",
            row.attack
        );
    }

    // What the query attack asked is there image by image, and adds up.
    let square = rows.iter().find(|row| row.kind == Kind::Query).unwrap();
    let outcomes = results::read_outcomes(&run("per_example.parquet")).unwrap();
    let of_square = || outcomes.iter().filter(|it| it.cell == square.cell);
    assert_eq!(
        of_square().map(|it| it.queries.unwrap()).sum::<u64>(),
        square.queries.unwrap()
    );
    assert_eq!(square.query_budget, Some(101));
    assert!(of_square().all(|it| it.correct == it.queries_until_success.is_none()));
    let until: Vec<f64> = of_square()
        .filter_map(|it| it.queries_until_success.filter(|&it| it > 0))
        .map(|it| it as f64)
        .collect();
    assert_eq!(square.queries_mean, results::mean(&until));
    assert!(!until.is_empty(), "the attack broke nothing");

    // Curves, comparisons and the worst case lie beside the tables.
    for file in [
        "epsilon-digits-tiny-cnn-best-pgd-60.svg",
        "epsilon-digits-tiny-cnn-best-pgd-60.csv",
        "queries-digits-tiny-cnn-best-square.svg",
        "queries-digits-tiny-cnn-best-square.csv",
        "transfer-fgsm.md",
        "transfer-fgsm.tex",
        "significance.md",
    ] {
        assert!(run(&format!("tables/{file}")).exists(), "{file}");
    }
    let significance = lines(&bytes(&run("tables/significance.csv")));
    // One pair on clean images, under each of 7 attacks, and under FGSM from either source.
    assert_eq!(significance.len(), 1 + 8 + 2, "{significance:?}");
    // In the order of the matrix.
    let white_box = [
        "PGD-60 @ 0.02",
        "PGD-60 @ 0.1",
        "PGD-60 @ 1",
        "PGD-20",
        "CW",
        "APGD",
        "Square",
    ];
    for (line, attack) in significance[2..].iter().zip(white_box) {
        assert!(line.contains(&format!(",{attack},")), "{attack}: {significance:?}");
    }
    for part in [
        "worst of PGD-20, CW",
        "PGD-60 @ 0.02",
        "Square queries",
        "FGSM from Natural / tiny-cnn",
        "forward + backward",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }

    // The diagonal of the transfer matrix is the white-box attack, the other defense's images are weaker.
    let transferred = |source: &str| {
        let label = format!("{source} / tiny-cnn");
        let of = |row: &&results::Row| row.defense == "Natural" && row.source.as_ref() == Some(&label);
        rows.iter().find(of).unwrap().n_correct.unwrap()
    };
    assert!(transferred("Natural") < transferred("Standard"));

    // The worst case by hand, and by the command line.
    let natural = |attack: &str| {
        rows.iter()
            .find(|row| row.defense == "Natural" && row.attack == attack)
            .unwrap()
    };
    let stands = |attack: &str| -> BTreeSet<u64> {
        let cell = &natural(attack).cell;
        let of_cell = outcomes.iter().filter(|it| it.cell == *cell && it.correct);
        of_cell
            .filter(|it| it.predicted_clean == Some(it.label))
            .map(|it| it.example)
            .collect()
    };
    let both = stands("PGD-20").intersection(&stands("Square")).count();
    let (out, _) = place.expect(
        0,
        &[
            "tables",
            "runs/honest",
            "--worst-of",
            "pgd 20,square",
            "--format",
            "csv",
        ],
    );
    let line = out
        .lines()
        .find(|line| line.contains("worst of pgd 20, square") && line.contains("Natural"));
    let expected = format!("{:.4}", 100.0 * both as f64 / 120.0);
    assert!(line.unwrap().contains(&expected), "{expected}: {out}");
    let (_, err) = place.expect(2, &["tables", "runs/honest", "--worst-of", "pdg"]);
    assert!(
        err.contains("no attack of this run is called `pdg`") && err.contains("pgd-20"),
        "{err}"
    );

    masked(&place);
    transferred_from_a_file(&place);
}

/// The same network with its last layer multiplied by 10,000: softmax saturates, the accuracy stays.
fn masked(place: &Place) {
    let export = [
        "export",
        "runs/honest",
        "--filter",
        "defense=standard",
        "--out",
        "honest.safetensors",
    ];
    place.expect(0, &export);
    let honest = [
        &["attack", "--checkpoint", "honest.safetensors"],
        &NETWORK[..],
        &ATTACKS,
    ]
    .concat();
    let (out, _) = place.expect(0, &honest);
    assert!(out.contains("no flags") && !out.contains("flag:"), "{out}");
    assert!(out.contains("median until success"), "{out}");

    let mut tensors = candle_core::safetensors::load(place.path("honest.safetensors"), &Device::Cpu).unwrap();
    for name in ["fc.weight", "fc.bias"] {
        let scaled = (tensors[name].to_dtype(DType::F32).unwrap() * 1e4).unwrap();
        tensors.insert(name.to_string(), scaled);
    }
    let tensors: HashMap<String, Tensor> = tensors;
    candle_core::safetensors::save(&tensors, place.path("masked.safetensors")).unwrap();
    let masked = [
        &["attack", "--checkpoint", "masked.safetensors", "--out", "rows"],
        &NETWORK[..],
        &ATTACKS,
    ]
    .concat();
    let (out, _) = place.expect(0, &masked);
    let rows = results::read_rows(&place.path("rows/results.parquet")).unwrap();
    let found: BTreeSet<(String, Flag)> = results::flags(&rows)
        .into_iter()
        .map(|it| (it.attack, it.flag))
        .collect();
    for (attack, flag) in [
        ("Natural", Flag::ZeroGradients),
        ("Natural", Flag::VanishingGradients),
        ("PGD-20", Flag::ZeroGradients),
        ("PGD-20", Flag::CrossEntropyGap),
        ("unbounded", Flag::SurvivesUnbounded),
    ] {
        assert!(
            found.contains(&(attack.to_string(), flag)),
            "{attack} {flag}: {found:?}"
        );
        assert!(
            out.contains(&format!("flag: {attack}: {flag}: ")),
            "{attack} {flag}: {out}"
        );
    }
    let natural = rows.iter().find(|row| row.attack == "Natural").unwrap();
    assert_eq!(natural.flags.as_deref(), Some("zero-gradients,vanishing-gradients"));
}

/// Images made on one file's network and counted on another's; a source of other classes is refused.
fn transferred_from_a_file(place: &Place) {
    let target = [
        "attack",
        "--checkpoint",
        "honest.safetensors",
        "--dataset",
        "digits",
        "--attack",
        "fgsm",
    ];
    let from =
        |source: &'static str, out: &'static str| [&target[..], &NETWORK, &["--source", source, "--out", out]].concat();
    let export = [
        "export",
        "runs/honest",
        "--filter",
        "defense=natural",
        "--out",
        "natural.safetensors",
    ];
    place.expect(0, &export);
    let (out, _) = place.expect(0, &from("natural.safetensors", "moved"));
    assert!(out.contains("images made on natural.safetensors"), "{out}");
    let rows = results::read_rows(&place.path("moved/results.parquet")).unwrap();
    let fgsm = rows.iter().find(|row| row.attack == "FGSM").unwrap();
    assert_eq!(
        (fgsm.kind, fgsm.source.as_deref()),
        (Kind::Transfer, Some("natural.safetensors"))
    );
    let run = results::read_rows(&place.path("runs/honest/results.parquet")).unwrap();
    let same = |row: &&results::Row| {
        row.kind == Kind::Transfer && row.defense == "Standard" && row.source.as_deref() == Some("Natural / tiny-cnn")
    };
    assert_eq!(fgsm.n_correct, run.iter().find(same).unwrap().n_correct);

    let mut tensors = candle_core::safetensors::load(place.path("natural.safetensors"), &Device::Cpu).unwrap();
    for name in ["fc.weight", "fc.bias"] {
        let fewer = tensors[name].narrow(0, 0, 7).unwrap().contiguous().unwrap();
        tensors.insert(name.to_string(), fewer);
    }
    candle_core::safetensors::save(&tensors, place.path("seven.safetensors")).unwrap();
    let (_, err) = place.expect(2, &from("seven.safetensors", "nowhere"));
    assert!(
        err.contains("seven.safetensors") && err.contains("10 classes") && err.contains("fc.weight"),
        "{err}"
    );
    let (_, err) = place.expect(
        2,
        &[
            &from("natural.safetensors", "nowhere")[..],
            &["--source-model", "lenet5"],
        ]
        .concat(),
    );
    assert!(err.contains("lenet5"), "{err}");
    assert!(!place.path("nowhere").exists());
}

#[test]
fn a_matrix_says_where_its_sources_are() {
    let place = Place::new(HONEST);
    let refuses = |setting: &str, part: &str| {
        let (_, err) = place.expect(2, &["validate", "m.yaml", "--set", setting]);
        assert!(err.contains(part), "{err}");
    };
    refuses(
        "transfer.source={ defense: { name: natural } }",
        "`source` or `sources`, not both",
    );
    refuses("transfer={ attacks: [{ name: fgsm }] }", "sources: defenses");
    refuses("transfer.sources=everything", "unknown name `everything`");
    refuses(
        "tables[0].worst_of=[[pgd-20, pdg]]",
        "no attack of this matrix is called `pdg`",
    );
    refuses("tables[0].worst_of=[[]]", "an empty list");
    refuses("attacks[0].epsilon=[]", "an empty list");
    refuses("attacks[0].epsilon=[0.1, 3]", "epsilon");
}
