use std::sync::LazyLock;
use std::time::{Duration, Instant};

use results::{Checkpoint, Flag, Kind, Row};

use super::*;
use crate::fixtures::{marked, marked_by, pair, row, white_box};
use crate::{
    BlockSpec, ColumnSpec, Csv, Exporter, Form, Latex, Markdown, Planned, Published, ResultIndex, RowSpec, TableKind,
    TableSpec, TableStyle,
};

fn entry(table: &Table, block: usize, defense: &str, column: &str) -> Entry {
    let line = table.blocks[block]
        .lines
        .iter()
        .find(|line| line.defense == defense)
        .unwrap();
    let place = table.columns.iter().position(|known| known.label == column).unwrap();
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
        style: TableStyle::default(),
    }
}

fn build(spec: &TableSpec, rows: &[Row]) -> Result<Table, Ambiguous> {
    Table::build(spec, &ResultIndex::new(&[], rows, &[], &Published::none()))
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
    let error = build(&spec, &rows).unwrap_err();
    assert_eq!(
        error.to_string(),
        "table `white-box` has two results for MART under PGD (digits, lenet, best, seed 0): cells \
         `digits-lenet-MART-PGD-best-0` and `other`; name the recipe or the source, or give the two different labels"
    );
    spec.rows[0].recipe = Some("long".to_string());
    let table = build(&spec, &rows).unwrap();
    assert_eq!(table.blocks[0].lines[0].entries[0].cell.planned(), 1);
}

#[test]
fn recipes_are_named_if_they_differ_or_add_something() {
    let defenses = ["MART".to_string(), "TRADES".to_string()];
    let spec = spec(&[("digits", "lenet")], &defenses, &["PGD".to_string()]);
    let check = |recipes: [&str; 2], expected: Option<&str>| {
        let row = |(defense, recipe): (&String, &str)| Row {
            recipe: recipe.to_string(),
            ..row(["digits", "lenet", defense, "PGD"], Kind::WhiteBox, Checkpoint::Best, 0).with_count(10, 7)
        };
        let rows: Vec<Row> = defenses.iter().zip(recipes).map(row).collect();
        let table = build(&spec, &rows).unwrap();
        let note = table.notes.iter().find(|note| note.starts_with("Recipes"));
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
    let comparisons = every_pair(&rows, &defenses);
    assert_eq!(comparisons.len(), 400 * (25 * 24 / 2));
    let planned: Vec<Planned> = rows.iter().map(Planned::of).collect();
    let spec = spec(&blocks, &defenses, &attacks);
    let exporters: [&dyn Exporter; 3] = [&Csv, &Markdown::default(), &Latex::Document];
    let once = || {
        let start = spent();
        let index = ResultIndex::new(&planned, &rows, &comparisons, Published::embedded());
        let indexed = spent();
        let table = Table::build(&spec, &index).unwrap();
        let filled = spent();
        let length: usize = exporters.iter().map(|exporter| exporter.export(&table).len()).sum();
        assert!(length > 100_000);
        let written = spent();
        (written - start, indexed - start, filled - indexed, written - filled)
    };
    let (taken, indexed, filled, written) = (0..3).map(|_| once()).min().unwrap();
    eprintln!("tables of 10,000 rows: {taken:.1?} (indexed {indexed:.1?}, filled {filled:.1?}, written {written:.1?})");
    // The goal is 200 ms. Five times that leaves room for slow processors and for builds that are not optimised; comparing
    // every row with every other, which is what this is there to notice, would take minutes.
    assert!(taken < Duration::from_secs(1), "took {taken:?}");
}

/// The processor time of this thread if the system measures it, else wall-clock time. Other load on the machine does
/// not increase the former.
fn spent() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = told.and_then(|text| text.split(' ').next()?.parse().ok());
    spent.map_or_else(|| START.elapsed(), Duration::from_nanos)
}

/// What `results::compare` would say of rows that are complete and ordered by defense.
fn every_pair(rows: &[Row], defenses: &[String]) -> Vec<results::Comparison> {
    let mut all = Vec::new();
    for row in rows.iter().filter(|row| row.defense == defenses[0]) {
        for (i, first) in defenses.iter().enumerate() {
            for second in &defenses[i + 1..] {
                all.push(results::Comparison {
                    dataset: row.dataset.clone(),
                    network: row.network.clone(),
                    checkpoint: row.checkpoint,
                    attack: row.attack.clone(),
                    ..pair([first, second], row.seed, 1.0, 0.01, 0.5)
                });
            }
        }
    }
    all
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
    let table = build(&spec, &rows).unwrap();
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

/// A flag has one letter in all tables of a run, whichever of them show it.
#[test]
fn a_flag_has_one_letter_in_a_run() {
    let attacks = ["PGD-20".to_string(), "CW".to_string()];
    let spec = spec(&[("digits", "lenet")], &["MART".to_string()], &attacks);
    let evaluated = |attack: &str, loss: &str, correct, zero_gradients| {
        let place = ["digits", "lenet", "MART", attack];
        Row {
            steps: Some(20),
            loss: Some(loss.to_string()),
            zero_gradients,
            ..row(place, Kind::WhiteBox, Checkpoint::Best, 0)
        }
        .with_count(1000, correct)
    };
    let gap = [
        evaluated("PGD-20", "cross-entropy", 650, None),
        evaluated("CW", "cw(kappa=50)", 560, None),
    ];
    // Another evaluation of the run, which this table does not show.
    let elsewhere = evaluated("FGSM", "cross-entropy", 700, Some(500));
    let letters = |rows: &[Row]| {
        let table = build(&spec, rows).unwrap();
        assert_eq!(table.flags, [Flag::CrossEntropyGap]);
        let texts = [Markdown::default().export(&table), Latex::Fragment.export(&table)];
        [
            texts[0].contains("ᵃ cross-entropy-gap"),
            texts[0].contains("ᵇ cross-entropy-gap"),
            texts[1].contains("\\textsuperscript{b} cross-entropy-gap"),
        ]
    };
    assert_eq!(letters(&gap), [true, false, false]);
    let all: Vec<Row> = gap.iter().cloned().chain([elsewhere]).collect();
    assert_eq!(letters(&all), [false, true, true]);
}

/// Three seeds give 84.0, 84.2 and 84.4 %: 84.2 ± 4.303 · 0.2 / √3, and 4.303 is in every textbook.
#[test]
fn the_interval_of_a_mean_is_students() {
    let Cell::Measured(it) = entry(&white_box(), 0, "Standard", "Natural").cell else {
        panic!("not measured");
    };
    let half = 4.303 * 0.2 / 3f64.sqrt();
    assert!(
        (it.low - (84.2 - half)).abs() < 1e-4 && (it.high - (84.2 + half)).abs() < 1e-4,
        "{it:?}"
    );
}

#[test]
fn what_is_not_clearly_below_the_highest_is_tied() {
    let of = |table: &Table, defense: &str, column: &str| {
        let it = entry(table, 0, defense, column);
        (it.highest, it.tied, it.different)
    };
    let table = marked(None);
    assert_eq!(of(&table, "MART", "PGD-20"), (true, None, None));
    // p is small for one seed of two: tied.
    assert_eq!(of(&table, "TRADES", "PGD-20"), (false, Some(true), None));
    assert_eq!(of(&table, "Standard", "PGD-20"), (false, Some(false), None));
    assert_eq!(of(&table, "Dynamic", "PGD-20"), (false, None, None));
    assert_eq!(of(&table, "TRADES", "worst of PGD-20, CW"), (false, None, None));

    // Small and large p, two seeds that point in opposite directions, and one seed that was not compared.
    let both = |p: f64, directions: [f64; 2]| {
        let seed = |seed| pair(["MART", "TRADES"], seed, directions[seed as usize], p, 3.0 * p);
        marked_by(&[seed(0), seed(1)], None)
    };
    let trades = |table: &Table| of(table, "TRADES", "PGD-20").1;
    assert_eq!(trades(&both(0.01, [2.0, 2.0])), Some(false));
    assert_eq!(trades(&both(0.02, [2.0, 2.0])), Some(true));
    assert_eq!(trades(&both(0.001, [2.0, -2.0])), Some(true));
    let one_seed = [pair(["MART", "TRADES"], 0, 2.0, 0.001, 0.003)];
    assert_eq!(trades(&marked_by(&one_seed, None)), None);
}

#[test]
fn a_chosen_line_has_its_own_adjustment() {
    let different = |table: &Table, defense: &str| entry(table, 0, defense, "PGD-20").different;
    let table = marked(Some("Standard"));
    let found = ["Standard", "TRADES", "MART", "Dynamic"].map(|defense| different(&table, defense));
    assert_eq!(found, [None, Some(true), Some(true), None]);
    assert!(table.entries().all(|entry| entry.tied.is_none()));
    // Holm over the two pairs of Standard: the larger p stays as it is, the smaller is doubled.
    let against = |p: [f64; 2]| {
        let pairs = [0, 1].map(|seed| {
            [
                pair(["Standard", "TRADES"], seed, -4.0, p[0], 1.0),
                pair(["MART", "Standard"], seed, 6.0, p[1], 1.0),
            ]
        });
        let table = marked_by(&pairs.concat(), Some("Standard"));
        [different(&table, "TRADES"), different(&table, "MART")]
    };
    assert_eq!(against([0.04, 0.001]), [Some(true), Some(true)]);
    assert_eq!(against([0.06, 0.001]), [Some(false), Some(true)]);
    assert_eq!(against([0.06, 0.03]), [Some(false), Some(false)]);
}

#[test]
fn marks_are_explained_where_they_stand() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (against, markdown, latex, parts) in [
        (
            None,
            "94.10 [92.8, 95.4] †",
            "\\textsuperscript{\\ensuremath{\\dagger}}",
            ["Bold: the highest", "not significantly below the best"],
        ),
        (
            Some("Standard"),
            "94.10 [92.8, 95.4] \\*",
            "\\textsuperscript{*}",
            ["Bold: the highest", "* significantly different from Standard"],
        ),
    ] {
        let table = marked(against);
        for (text, mark) in [
            (Markdown::default().export(&table), markdown),
            (Latex::Fragment.export(&table), latex),
        ] {
            assert!(text.contains(mark), "{text}");
            for part in parts
                .into_iter()
                .chain(["Not tested for significance: worst of PGD-20, CW."])
            {
                assert!(words(&text).contains(part), "{part}: {text}");
            }
        }
    }
    assert!(Csv.export(&marked(None)).contains("validation,false,true,,\n"));
    assert!(
        Csv.export(&marked(Some("Standard")))
            .contains("validation,false,,true,\n")
    );
}

#[test]
fn notes_say_which_numbers_are_of_fewer_images() {
    let note = |counts: &[(&str, &str, u64)]| {
        let rows = counts.iter().enumerate().map(|(seed, (dataset, attack, n))| {
            row(
                [dataset, "lenet", "MART", attack],
                Kind::WhiteBox,
                Checkpoint::Best,
                seed as u64,
            )
            .with_count(*n, 5)
        });
        let rows: Vec<Row> = rows.collect();
        let planned: Vec<Planned> = rows.iter().map(Planned::of).collect();
        let attacks = ["PGD", "CW", "AutoAttack"].map(String::from);
        let spec = spec(
            &[("mnist", "lenet"), ("digits", "lenet")],
            &["MART".to_string()],
            &attacks,
        );
        let table = Table::build(&spec, &ResultIndex::new(&planned, &rows, &[], Published::embedded())).unwrap();
        let note = table
            .notes
            .into_iter()
            .find(|note| note.starts_with("Accuracy in %"))
            .unwrap();
        note.split(';').next().unwrap().replace("Accuracy in % on ", "")
    };
    assert_eq!(
        note(&[("mnist", "PGD", 2000), ("digits", "CW", 2000)]),
        "2,000 test images"
    );
    assert_eq!(
        note(&[
            ("mnist", "PGD", 2000),
            ("mnist", "AutoAttack", 20),
            ("mnist", "CW", 2000)
        ]),
        "2,000 test images (AutoAttack on 20)"
    );
    assert_eq!(
        note(&[
            ("mnist", "PGD", 2000),
            ("mnist", "AutoAttack", 20),
            ("digits", "PGD", 500),
            ("digits", "PGD", 400)
        ]),
        "500 test images of digits (PGD on 400 to 500), 2,000 of mnist (AutoAttack on 20)"
    );
}

#[test]
fn nothing_is_bold_unless_wanted() {
    let table = white_box();
    assert!(Markdown::default().export(&table).contains("**87.20**"));
    let style = TableStyle {
        bold: false,
        ..TableStyle::default()
    };
    let plain = Table { style, ..table };
    assert!(!Markdown::default().export(&plain).contains("**"));
    assert!(!Latex::Fragment.export(&plain).contains("textbf"));
}

#[test]
fn a_style_survives_its_file() {
    let mut spec = spec(&[("digits", "lenet")], &["MART".to_string()], &["PGD".to_string()]);
    let plain = serde_json::to_string(&spec).unwrap();
    assert!(!plain.contains("look"), "{plain}");
    spec.style = TableStyle {
        form: Some(Form::Long),
        against: Some("Standard".into()),
        bold: false,
        ..TableStyle::default()
    };
    let text = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<TableSpec>(&text).unwrap(), spec);
    assert_eq!(
        serde_json::from_str::<TableSpec>(&plain).unwrap().style,
        TableStyle::default()
    );
}
