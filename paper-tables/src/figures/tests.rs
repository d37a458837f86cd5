use proptest::prelude::*;

use super::*;
use crate::fixtures;

/// One figure of each kind, with a name in every place that takes one.
fn figures(name: &str) -> Vec<Box<dyn Figure>> {
    let curve = Curve {
        label: name.to_string(),
        points: vec![(0.5, 10.0), (5.0, 90.0)],
        deviations: vec![1.0, 2.0],
        marks: vec![(5.0, 90.0)],
    };
    let chart = Chart {
        id: "awkward-chart".to_string(),
        title: name.to_string(),
        x: name.to_string(),
        y: name.to_string(),
        logarithmic: true,
        curves: vec![curve],
        marked: name.to_string(),
        ..Chart::default()
    };
    let empty = Chart {
        id: "empty".to_string(),
        ..Chart::default()
    };
    let bars = Bars {
        id: "awkward-bars".to_string(),
        title: name.to_string(),
        y: name.to_string(),
        series: vec![name.to_string(), "b".to_string()],
        groups: vec![(
            name.to_string(),
            vec![
                Some(Bar {
                    value: 50.0,
                    deviation: Some(3.0),
                    interval: None,
                }),
                None,
            ],
        )],
    };
    let map = HeatMap {
        id: "awkward-map".to_string(),
        title: name.to_string(),
        lines: vec![name.to_string(), "b".to_string()],
        columns: vec![name.to_string()],
        values: vec![vec![Some(12.0)], vec![None]],
        line: name.to_string(),
        column: name.to_string(),
    };
    let shape = [3, 2, 2];
    let pixels = |value| {
        Image {
            values: &[value; 12],
            shape,
        }
        .pixels()
    };
    let pair = |outcome| AttackedImage {
        before: name.to_string(),
        after: name.to_string(),
        outcome,
        change: pixels(0.5),
        attacked: pixels(0.2),
    };
    let images = ExampleImages {
        id: "awkward-images".to_string(),
        title: name.to_string(),
        times: "2.5".to_string(),
        clean: [7, 9]
            .map(|id| CleanImage {
                id,
                label: name.to_string(),
                image: pixels(0.7),
            })
            .into(),
        lines: vec![AttackedImages {
            name: name.to_string(),
            accuracy: "57.4 % correct".to_string(),
            pairs: vec![pair("fooled"), pair("wrong")],
        }],
        note: String::new(),
    };
    vec![
        Box::new(chart),
        Box::new(empty),
        Box::new(bars),
        Box::new(map),
        Box::new(images),
    ]
}

/// Names that are commands in LaTeX or tags in SVG.
#[test]
fn figures_compile_with_any_name() {
    for figure in figures(r"R&D_1 50% {x} <a|b> \y, #1") {
        let svg = figure.svg();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(!svg.contains("<a|b>") && !svg.contains("R&D"), "{svg}");
        fixtures::compile(figure.id(), &figure.tex());
    }
    for figure in figures("基\u{1b}[31m ⁺\n′") {
        fixtures::compile(&format!("{}-2", figure.id()), &figure.tex());
    }
}

/// Why this is not well-formed XML, as far as names can make it so.
fn fault(xml: &str) -> Option<String> {
    let forbidden = |c: &char| (*c < ' ' && !"\t\n\r".contains(*c)) || ['\u{fffe}', '\u{ffff}'].contains(c);
    if let Some(character) = xml.chars().find(forbidden) {
        return Some(format!("{character:?}"));
    }
    let mut open = Vec::new();
    for part in xml.split('<').skip(1) {
        let (tag, text) = part.split_once('>')?;
        let name = tag.split([' ', '\n', '/']).find(|word| !word.is_empty())?;
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) if open.pop() != Some(name) => return Some(format!("</{name}>")),
            (false, false) => open.push(name),
            _ => {}
        }
        let bare = |text: &str| {
            let entities = text.split('&').skip(1);
            entities.map(|rest| rest.split_once(';')).any(|entity| {
                entity.is_none_or(|(name, _)| {
                    !["amp", "lt", "gt", "quot", "apos"].contains(&name) && !name.starts_with('#')
                })
            })
        };
        if bare(text) || text.contains('>') || tag.matches('"').count() % 2 == 1 {
            return Some(part.to_string());
        }
    }
    (!open.is_empty()).then(|| format!("{open:?} is open"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Every writer survives every name, and names that differ stay different.
    #[test]
    fn every_writer_survives_any_name(any in any::<String>(), near in "[\0-\u{20}<&\"'\\\\%\u{7f}中\u{fffe}]{0,6}") {
        for name in [any, near] {
            for figure in figures(&name) {
                prop_assert_eq!(fault(&figure.svg()), None);
                let tex = figure.tex();
                prop_assert_eq!(tex.matches('{').count() - tex.matches("\\{").count(), tex.matches('}').count() - tex.matches("\\}").count());
                let text = figure.csv();
                let mut csv = ::csv::Reader::from_reader(text.as_bytes());
                for record in csv.records() {
                    let record = record.unwrap();
                    prop_assert!(figure.id() != "awkward-bars" || record[1] == name);
                }
            }
        }
    }
}
