//! Tables for tests: every kind of cell, one seed and three, one checkpoint and two.

use results::{Checkpoint, Kind, Row, Selection};

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
        code_version: "0.1.0".to_string(),
        ..Row::default()
    }
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

/// Three seeds on CIFAR-10 with a failure, a gap and half-done cells; one seed on unverified data.
pub(crate) fn white_box() -> Table {
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
    Table::build(&spec, &planned, &rows, Published::embedded()).unwrap()
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
    Table::build(&spec, &[], &rows, Published::embedded()).unwrap()
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
    Table::build(&spec, &[], &rows, Published::embedded()).unwrap()
}
