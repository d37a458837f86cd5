use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use results::Flag;

use super::*;
use crate::figures::{AttackedImage, AttackedImages, Chart, CleanImage, Curve, ExampleImages, HeatMap, Image};

#[test]
fn what_users_wrote_is_text() {
    let report = Report {
        title: "<script>alert(1)</script>".into(),
        matrix: "name: \"</pre><img src=x>\"".into(),
        heats: vec![ReportHeatMap::new(&HeatMap {
            id: "heat".into(),
            title: "\"PGD\"".into(),
            line: "made on".into(),
            column: "counted on".into(),
            lines: vec!["a".into()],
            columns: vec!["b".into(), "c".into()],
            values: vec![vec![Some(50.0), None]],
        })],
        ..Report::default()
    };
    let page = report.html().unwrap();
    assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
    assert!(!page.contains("<img src=x>"));
    assert!(page.contains("#transfer") && !page.contains("#flags") && !page.contains("#curves"));
    assert!(page.contains(">50.00</span>"));
    // No network.
    assert!(!page.contains("http://") && !page.contains("https://"));
}

/// A mark links to its explanation, and the explanation links to the marks.
#[test]
fn marks_and_explanations_lead_to_each_other() {
    let mut table = crate::fixtures::white_box();
    table.blocks[0].lines[0].entries[1].flags = vec![Flag::CrossEntropyGap];
    let report = Report {
        tables: vec![ReportTable::new(&table, |_| "1".into(), |_| None)],
        flags: vec![ReportFlag {
            mark: "1".into(),
            name: "cross-entropy-gap".into(),
            text: "why".into(),
            places: vec!["here: <b>".into()],
        }],
        cells: ["done", "failed", "missing"]
            .map(|state| CellLine {
                state,
                values: vec![
                    Value::text(state),
                    Value {
                        class: "marks".into(),
                        ..Value::number(None, |_| String::new())
                    },
                ],
                marks: vec!["1".into()],
                panel: String::new(),
            })
            .into(),
        ..Report::default()
    };
    let page = report.html().unwrap();
    let name = format!("mark-{}-0-0-1-1", table.id);
    for part in [
        format!("id=\"{name}\" href=\"#flag-1\""),
        format!("href=\"#{name}\""),
        "tr id=\"flag-1\"".into(),
        "here: &lt;b&gt;".into(),
        "3 of 3 evaluations".into(),
    ] {
        assert!(page.contains(&part), "{part}");
    }
    // One beside the number, one in each line of the list.
    assert_eq!(page.matches("href=\"#flag-1\"").count(), 4);
    assert_eq!(page.matches("data-flagged").count(), 3);
}

#[test]
fn example_images_say_what_the_attack_did() {
    let outcomes = [
        AttackedImage::outcome(3, 3, 3),
        AttackedImage::outcome(3, 3, 5),
        AttackedImage::outcome(3, 5, 5),
        AttackedImage::outcome(3, 5, 3),
    ];
    assert_eq!(outcomes, ["right", "fooled", "wrong", "right"]);
    let image = || {
        Image {
            values: &[0.5],
            shape: [1, 1, 1],
        }
        .pixels()
    };
    let pair = |outcome| AttackedImage {
        before: "cat".into(),
        after: "dog".into(),
        outcome,
        change: image(),
        attacked: image(),
    };
    let report = Report {
        examples: vec![ExampleImages {
            id: "examples".into(),
            title: "PGD".into(),
            times: "2.5".into(),
            clean: vec![CleanImage {
                id: 7,
                label: "cat".into(),
                image: image(),
            }],
            lines: vec![AttackedImages {
                name: "MART".into(),
                accuracy: "57.4 % correct".into(),
                pairs: vec![pair("fooled")],
            }],
            note: String::new(),
        }],
        ..Report::default()
    };
    let page = report.html().unwrap();
    for part in [
        "#examples",
        "2.5 times",
        "cat → dog, fooled",
        "image 7",
        "57.4 % correct",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("<img").count(), page.matches(" alt=").count());
}

#[test]
fn a_chart_is_numbers_as_well() {
    let curve = |label: &str, points: &[(f64, f64)]| Curve {
        label: label.into(),
        points: points.to_vec(),
        ..Curve::default()
    };
    let chart = Chart {
        id: "c".into(),
        title: "c".into(),
        x: "epoch".into(),
        y: "%".into(),
        logarithmic: false,
        curves: vec![
            curve("a", &[(1.0, 10.0), (2.0, 20.0)]),
            curve("b", &[(2.0, 30.0), (3.0, 40.0)]),
        ],
        range: None,
        marked: String::new(),
    };
    let picture = ReportChart::new(&chart);
    assert_eq!(picture.heads, ["epoch", "a", "b"]);
    assert_eq!(
        picture.lines,
        [["1", "10.00", "—"], ["2", "20.00", "30.00"], ["3", "—", "40.00"]]
    );
    assert!(picture.svg.contains("currentColor") && !picture.svg.contains("#000000"));
}

/// A number leads to its panel, and the panel back to the number, to files, curves and classes.
#[test]
fn a_number_opens_what_is_known_of_it() {
    let table = crate::fixtures::white_box();
    let chart = Chart {
        id: "learning".into(),
        title: "robust accuracy".into(),
        curves: vec![Curve {
            label: "ALP".into(),
            points: vec![(1.0, 10.0), (2.0, 20.0)],
            ..Curve::default()
        }],
        ..Chart::default()
    };
    let chart = ReportChart::new(&chart);
    assert_eq!(
        (chart.shows("ALP"), chart.shows("MART")),
        (Some("figure-learning"), None)
    );
    let folder = |linked| CellFolder {
        label: "files of the evaluation".into(),
        path: "cells/0a1b".into(),
        files: vec!["status.json".into()],
        linked,
    };
    let page = |linked| {
        let panel = |at: At| (at.line == 1 && at.column == 2).then(|| "number-0a1b".to_string());
        let report = Report {
            tables: vec![ReportTable::new(&table, |_| "a".into(), panel)],
            charts: vec![chart.clone()],
            details: vec![Detail {
                id: "number-0a1b".into(),
                title: "ALP under <PGD-20>".into(),
                seeds: vec![DetailSeed {
                    seed: u64::MAX,
                    state: "done",
                    text: "60.00 %".into(),
                    folders: vec![folder(linked)],
                    ..DetailSeed::default()
                }],
                classes: vec![ClassCount::new("cat".into(), 1, 3)],
                links: vec![PageLink {
                    to: "figure-learning".into(),
                    text: "curve".into(),
                    curve: "ALP".into(),
                }],
                ..Detail::default()
            }],
            ..Report::default()
        };
        // Slashes are escaped.
        report.html().unwrap().replace("&#x2f;", "/")
    };
    let linked = page(true);
    for part in [
        "<td id=\"at-white-box-0-1-2\"",
        "href=\"#number-0a1b\">65.20</a>",
        "<article class=\"panel\" id=\"number-0a1b\"",
        "class=\"close\" href=\"#at-white-box-0-1-2\"",
        "ALP under &lt;PGD-20&gt;",
        "seed 18446744073709551615",
        "href=\"cells/0a1b/status.json\"",
        "33.3 % <small>1 of 3</small>",
        "href=\"#figure-learning\" data-label=\"ALP\"",
        "<figure id=\"figure-learning\"",
    ] {
        assert!(linked.contains(part), "{part}");
    }
    // A page that lies elsewhere names the files, but has no links that lead nowhere.
    let apart = page(false);
    assert!(apart.contains("status.json") && !apart.contains("href=\"cells/"));
}

/// What the page offers to save is the file that the run's folder has.
#[test]
fn the_page_holds_its_files() {
    let table = crate::fixtures::white_box();
    let report = Report {
        tables: vec![ReportTable::new(&table, |_| "a".into(), |_| None)],
        ..Report::default()
    };
    let page = report.html().unwrap();
    let saved = |name: &str| {
        let (_, rest) = page.split_once(&format!("download=\"{name}\" href=\"")).unwrap();
        let address = rest.split('"').next().unwrap();
        let (_, text) = address.split_once("base64,").unwrap();
        String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
    };
    use crate::exporter::Exporter;
    assert_eq!(saved("white-box.csv"), crate::Csv.export(&table));
    assert_eq!(saved("input-white-box.tex"), crate::Latex::Fragment.export(&table));
}

/// Seeds that a floating-point number cannot hold keep every digit, as text and as what they are sorted by.
#[test]
fn large_seeds_keep_their_digits() {
    for seed in [9_007_199_254_740_993, u64::MAX] {
        let value = Value::integer(Some(seed));
        assert_eq!([&value.text, &value.key], [&seed.to_string(), &seed.to_string()]);
    }
    assert_eq!(Value::integer(None).text, "—");
}

/// Curves can be told apart by their classes, so that a legend can highlight one; bars have intervals.
#[test]
fn a_legend_knows_its_curves() {
    let curve = |label: &str| Curve {
        label: label.into(),
        points: vec![(1.0, 10.0), (2.0, 20.0)],
        marks: vec![(2.0, 20.0)],
        ..Curve::default()
    };
    let chart = Chart {
        id: "c".into(),
        marked: "best epoch".into(),
        curves: (0..9).map(|number| curve(&format!("d{number}"))).collect(),
        ..Chart::default()
    };
    let picture = ReportChart::new(&chart);
    for number in 0..9 {
        // A line and a dot.
        assert_eq!(
            picture.svg.matches(&format!("class=\"curve k{number}\"")).count(),
            2,
            "{number}"
        );
    }
    assert!(!picture.svg.contains("#0100"), "{}", picture.svg);
    let bar = |value, deviation, interval| {
        Some(crate::Bar {
            value,
            deviation,
            interval,
        })
    };
    let bars = crate::Bars {
        id: "b".into(),
        title: "b".into(),
        y: "%".into(),
        series: vec!["best".into(), "last".into()],
        groups: vec![(
            "MART".into(),
            vec![bar(50.0, Some(2.0), None), bar(99.0, None, Some((90.0, 99.5)))],
        )],
    };
    let report = Report {
        charts: vec![picture, ReportChart::of_bars(&bars)],
        ..Report::default()
    };
    let page = report.html().unwrap();
    for part in [
        "data-curve=\"8\" data-label=\"d8\"",
        "left:48.00%;width:4.00%",
        "left:90.00%;width:9.50%",
        "50.00<small> ± 2.00</small>",
        "99.00<small> [90.0, 99.5]</small>",
        "one standard deviation over seeds, or the 95 % interval",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// The page survives every name.
    #[test]
    fn any_name_is_text(name in "[\0-\u{20}<&\"'/\\\\%\u{7f}中\u{fffe}a]{0,8}") {
        let mut table = crate::fixtures::white_box();
        table.title.clone_from(&name);
        table.columns[0].label.clone_from(&name);
        table.blocks[0].lines[0].defense.clone_from(&name);
        let said = headlines(&table, &[]);
        let report = Report {
            title: name.clone(),
            matrix: name.clone(),
            overview: vec![ReportChart::of_bars(&said[0].bars)],
            sentences: vec![Item::new(&said[0].compared, &said[0].outcome)],
            tables: vec![ReportTable::new(&table, |_| "a".into(), |_| None)],
            ..Report::default()
        };
        let page = report.html().unwrap();
        prop_assert!(page.chars().all(|c| c >= ' ' || "\t\n\r".contains(c)));
        let plain = Report { title: "plain".into(), ..Report::default() }.html().unwrap();
        // No name opens or closes an element or a script.
        prop_assert_eq!(page.matches("<script").count(), plain.matches("<script").count());
        prop_assert_eq!(page.matches("</script").count(), plain.matches("</script").count());
        prop_assert_eq!(page.matches("<h1>").count(), 1);
    }
}
