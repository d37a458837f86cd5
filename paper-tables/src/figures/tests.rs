use super::*;
use crate::fixtures;

/// Names that are commands in LaTeX or tags in SVG.
#[test]
fn figures_compile_with_any_name() {
    let awkward = r"R&D_1 50% {x} <a|b> \y, #1".to_string();
    let curve = Curve {
        label: awkward.clone(),
        points: vec![(0.5, 10.0), (5.0, 90.0)],
        deviations: vec![1.0, 2.0],
        marks: vec![(5.0, 90.0)],
    };
    let chart = Chart {
        id: "awkward-chart".to_string(),
        title: awkward.clone(),
        x: awkward.clone(),
        y: awkward.clone(),
        logarithmic: true,
        curves: vec![curve],
        marked: awkward.clone(),
        ..Chart::default()
    };
    let empty = Chart {
        id: "empty".to_string(),
        ..Chart::default()
    };
    let bars = Bars {
        id: "awkward-bars".to_string(),
        title: awkward.clone(),
        y: awkward.clone(),
        series: vec![awkward.clone(), "b".to_string()],
        groups: vec![(
            awkward.clone(),
            vec![
                Some(Bar {
                    value: 50.0,
                    deviation: Some(3.0),
                }),
                None,
            ],
        )],
    };
    let map = HeatMap {
        id: "awkward-map".to_string(),
        title: awkward.clone(),
        lines: vec![awkward.clone(), "b".to_string()],
        columns: vec![awkward.clone()],
        values: vec![vec![Some(12.0)], vec![None]],
        line: awkward.clone(),
        column: awkward.clone(),
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
        before: awkward.clone(),
        after: awkward.clone(),
        outcome,
        change: pixels(0.5),
        attacked: pixels(0.2),
    };
    let images = ExampleImages {
        id: "awkward-images".to_string(),
        title: awkward.clone(),
        times: "2.5".to_string(),
        clean: [7, 9]
            .map(|id| CleanImage {
                id,
                label: awkward.clone(),
                image: pixels(0.7),
            })
            .into(),
        lines: vec![AttackedImages {
            name: awkward.clone(),
            accuracy: "57.4 % left".to_string(),
            pairs: vec![pair("fooled"), pair("wrong")],
        }],
        note: String::new(),
    };
    let figures: [&dyn Figure; 5] = [&chart, &empty, &bars, &map, &images];
    for figure in figures {
        let svg = figure.svg();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(!svg.contains("<a|b>") && !svg.contains("R&D"), "{svg}");
        fixtures::compile(figure.id(), &figure.tex());
    }
}
