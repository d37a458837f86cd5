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
        tables: vec![ReportTable::new(&table, |_| "1".into())],
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
        "3 of 3 cells".into(),
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
