use std::time::{Duration, Instant};

use results::{Checkpoint, Flag, Kind, Row};

use super::*;
use crate::samples::{row, white_box};
use crate::{BlockSpec, ColumnSpec, Csv, Exporter, Latex, Markdown, Planned, Published, RowSpec, TableKind, TableSpec};

fn entry(table: &Table, block: usize, defense: &str, column: &str) -> Entry {
    let line = table.blocks[block]
        .lines
        .iter()
        .find(|it| it.defense == defense)
        .unwrap();
    let place = table.columns.iter().position(|it| it.label == column).unwrap();
    line.entries[place].clone()
}

#[test]
fn a_number_is_never_made_up() {
    let table = white_box();
    let cell = |defense, column| entry(&table, 0, defense, column).cell;
    let Cell::Measured(natural) = cell("Standard", "Natural") else {
        panic!("not measured");
    };
    // Seeds give 84.0, 84.2 and 84.4 %.
    assert!((natural.mean - 84.2).abs() < 1e-9);
    let Spread::Deviation(deviation) = natural.spread else {
        panic!("three seeds have a deviation");
    };
    assert!((deviation - 0.2).abs() < 1e-9);
    assert_eq!((natural.seeds, natural.images), (3, 10_000));
    let failed = Cell::Failed {
        planned: 3,
        reason: "loss is not finite in epoch 3".to_string(),
    };
    assert_eq!(cell("ALP", "CW∞"), failed);
    assert_eq!(cell("TRADES", "AutoAttack"), Cell::Missing { planned: 3 });
    let Cell::Partial {
        measurement,
        planned,
        failed,
        ..
    } = cell("MART", "CW∞")
    else {
        panic!("not partial");
    };
    assert_eq!((measurement.seeds, planned, failed), (1, 3, 2));
    assert_eq!(cell("MART", "CW∞").reason(), Some("out of memory"));
    let Cell::Partial {
        measurement,
        planned,
        failed,
        ..
    } = cell("MART", "AutoAttack")
    else {
        panic!("not partial");
    };
    assert_eq!((measurement.seeds, planned, failed), (2, 3, 0));
}

#[test]
fn one_seed_shows_the_interval_over_images() {
    let Cell::Measured(it) = entry(&white_box(), 1, "Standard", "Natural").cell else {
        panic!("not measured");
    };
    let expected = results::wilson(336, 400).unwrap();
    let Spread::Interval { low, high } = it.spread else {
        panic!("one seed has no deviation");
    };
    assert!((low - expected.low * 100.0).abs() < 1e-9 && (high - expected.high * 100.0).abs() < 1e-9);
}

#[test]
fn ours_stands_beside_the_published() {
    let table = white_box();
    let mart = entry(&table, 0, "MART", "PGD-20");
    assert_eq!(mart.published.as_ref().unwrap().value, 55.57);
    assert!((mart.difference().unwrap() - (67.2 - 55.57)).abs() < 1e-9);
    assert_eq!(entry(&table, 0, "ALP", "PGD-20").published, None);
    assert_eq!(entry(&table, 1, "MART", "PGD-20").published, None);
    assert_eq!(entry(&table, 0, "ALP", "CW∞").difference(), None);
}

#[test]
fn only_complete_cells_can_be_highest() {
    let table = white_box();
    assert!(entry(&table, 0, "MART", "Natural").highest);
    assert!(!entry(&table, 0, "Standard", "Natural").highest);
    // MART's is higher, from one seed of three.
    assert!(entry(&table, 0, "TRADES", "CW∞").highest);
    assert!(!entry(&table, 0, "MART", "CW∞").highest);
}

#[test]
fn unverified_data_are_named_in_every_format() {
    let table = white_box();
    assert_eq!((table.blocks[0].verified, table.blocks[1].verified), (true, false));
    let exporters: [&dyn Exporter; 4] = [&Csv, &Markdown::default(), &Latex::Document, &Latex::Fragment];
    for exporter in exporters {
        assert!(
            exporter.export(&table).contains("unverified data"),
            "{}",
            exporter.extension()
        );
    }
}

fn spec(blocks: &[(&str, &str)], defenses: &[String], attacks: &[String]) -> TableSpec {
    TableSpec {
        id: "white-box".to_string(),
        title: "White-box".to_string(),
        kind: TableKind::WhiteBox,
        blocks: blocks
            .iter()
            .map(|(dataset, network)| BlockSpec {
                label: format!("{dataset}, {network}"),
                dataset: dataset.to_string(),
                network: network.to_string(),
            })
            .collect(),
        rows: defenses
            .iter()
            .map(|defense| RowSpec {
                defense: defense.clone(),
                recipe: None,
                published: None,
            })
            .collect(),
        columns: attacks
            .iter()
            .map(|attack| ColumnSpec {
                label: attack.clone(),
                attack: attack.clone(),
                kind: Kind::WhiteBox,
                source: None,
                published: None,
            })
            .collect(),
        checkpoints: vec![Checkpoint::Best, Checkpoint::Last],
    }
}

#[test]
fn two_results_for_one_seed_are_refused_unless_told_apart() {
    let mut spec = spec(&[("digits", "lenet")], &["MART".to_string()], &["PGD".to_string()]);
    let place = ["digits", "lenet", "MART", "PGD"];
    let one = row(place, Kind::WhiteBox, Checkpoint::Best, 0).with_count(10, 7);
    let mut two = one.clone();
    two.recipe = "long".to_string();
    two.cell = "other".to_string();
    let rows = [one, two];
    let error = Table::build(&spec, &[], &rows, &Published::none()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "table `white-box` has two results for MART under PGD (digits, lenet, best, seed 0): cells \
         `digits-lenet-MART-PGD-best-0` and `other`; name the recipe or the source, or give the two different labels"
    );
    spec.rows[0].recipe = Some("long".to_string());
    let table = Table::build(&spec, &[], &rows, &Published::none()).unwrap();
    assert_eq!(table.blocks[0].lines[0].entries[0].cell.planned(), 1);
}

#[test]
fn recipes_are_told_where_they_differ_or_add_something() {
    let defenses = ["MART".to_string(), "TRADES".to_string()];
    let spec = spec(&[("digits", "lenet")], &defenses, &["PGD".to_string()]);
    let check = |recipes: [&str; 2], expected: Option<&str>| {
        let row = |(defense, recipe): (&String, &str)| Row {
            recipe: recipe.to_string(),
            ..row(["digits", "lenet", defense, "PGD"], Kind::WhiteBox, Checkpoint::Best, 0).with_count(10, 7)
        };
        let rows: Vec<Row> = defenses.iter().zip(recipes).map(row).collect();
        let table = Table::build(&spec, &[], &rows, &Published::none()).unwrap();
        let note = table.notes.iter().find(|it| it.starts_with("Recipes"));
        assert_eq!(note.map(String::as_str), expected);
    };
    check(["shared", "shared"], None);
    check(
        ["shared", "authors"],
        Some("Recipes: “authors” for TRADES; “shared” for MART."),
    );
    check(
        ["shared, AWP", "shared, AWP"],
        Some("Recipes: “shared, AWP” for MART, TRADES. AWP: adversarial weight perturbation."),
    );
}

#[test]
fn ten_thousand_rows_take_no_time() {
    let names = |what: &str, n: usize| (0..n).map(|k| format!("{what} {k}")).collect::<Vec<_>>();
    let (defenses, attacks) = (names("defense", 25), names("attack", 20));
    let blocks = [("cifar10", "resnet18"), ("mnist", "lenet")];
    let mut rows = Vec::new();
    for (dataset, network) in blocks {
        for defense in &defenses {
            for attack in &attacks {
                for checkpoint in [Checkpoint::Best, Checkpoint::Last] {
                    for seed in 0..5 {
                        let place = [dataset, network, defense, attack];
                        rows.push(row(place, Kind::WhiteBox, checkpoint, seed).with_count(10_000, 5_000 + seed));
                    }
                }
            }
        }
    }
    assert_eq!(rows.len(), 10_000);
    let planned: Vec<Planned> = rows.iter().map(Planned::of).collect();
    let spec = spec(&blocks, &defenses, &attacks);
    let exporters: [&dyn Exporter; 3] = [&Csv, &Markdown::default(), &Latex::Document];
    let once = || {
        let start = Instant::now();
        let table = Table::build(&spec, &planned, &rows, Published::embedded()).unwrap();
        let length: usize = exporters.iter().map(|it| it.export(&table).len()).sum();
        assert!(length > 100_000);
        start.elapsed()
    };
    // The best of three, for the machine may be busy. Comparing every row with every other would take minutes.
    let taken = (0..3).map(|_| once()).min().unwrap();
    assert!(taken < Duration::from_secs(5), "took {taken:?}");
}

#[test]
fn flags_are_marked_and_explained_in_every_format() {
    let spec = spec(
        &[("digits", "lenet")],
        &["MART".to_string()],
        &["PGD-20".to_string(), "CW".to_string()],
    );
    let attacked = |attack: &str, loss: &str, correct| {
        let place = ["digits", "lenet", "MART", attack];
        Row {
            steps: Some(20),
            loss: Some(loss.to_string()),
            forwards: Some(21_000),
            backwards: Some(20_000),
            ..row(place, Kind::WhiteBox, Checkpoint::Best, 0)
        }
        .with_count(1000, correct)
    };
    let rows = [
        attacked("PGD-20", "cross-entropy", 650),
        attacked("CW", "cw(kappa=50)", 560),
    ];
    let table = Table::build(&spec, &[], &rows, &Published::none()).unwrap();
    assert_eq!(table.flags, [Flag::CrossEntropyGap]);
    let flags = |column: usize| table.blocks[0].lines[0].entries[column].flags.clone();
    assert_eq!((flags(0), flags(1)), (vec![Flag::CrossEntropyGap], vec![]));
    let explained = Flag::CrossEntropyGap.explanation();
    for (text, mark, none) in [
        (
            Markdown::default().export(&table),
            "65.00 [62.0, 67.9] ᵃ",
            "56.00 [52.9, 59.1] ᵃ",
        ),
        (
            Latex::Fragment.export(&table),
            "\\textsuperscript{a}",
            "56.00 \\textsuperscript",
        ),
    ] {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(mark) && !words.contains(none), "{text}");
        assert!(
            words.contains(explained) && words.contains("cross-entropy-gap"),
            "{text}"
        );
        assert!(words.contains("PGD-20 21 + 20"), "{text}");
    }
    let csv = Csv.export(&table);
    assert!(csv.contains("cross-entropy-gap,21.0000,20.0000"), "{csv}");
}
