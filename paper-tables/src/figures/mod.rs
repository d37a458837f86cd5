//! Figures: each as SVG for pages, as LaTeX for papers, and as CSV of its points for programs.

mod bars;
mod chart;
mod epsilon;
mod gallery;
mod heat;
mod learning;
mod overfitting;
mod pixels;
mod queries;
mod svg;
mod transfer;
mod weight;

use std::collections::BTreeMap;

use minijinja::context;
use results::{Checkpoint, Row};

pub use self::bars::{Bar, Bars};
pub use self::chart::{Chart, Curve, Point};
pub use self::epsilon::epsilon_charts;
pub use self::gallery::{Attacked, Clean, Gallery, Pair};
pub use self::heat::HeatMap;
pub(crate) use self::heat::shade;
pub use self::learning::{Epoch, History, learning_charts};
pub use self::overfitting::overfitting_bars;
pub use self::pixels::{Image, Pixels, magnification};
pub use self::queries::query_charts;
pub(crate) use self::svg::colour;
pub use self::transfer::transfer_maps;
pub use self::weight::{Weight, weight_charts};
use crate::latex::filled;

/// A figure.
pub trait Figure {
    /// The name in files: letters, digits and hyphens.
    fn id(&self) -> &str;

    /// Its points, one a line.
    fn csv(&self) -> String;

    /// For pages.
    fn svg(&self) -> String;

    /// A document for pdflatex and the package pgfplots that compiles on its own; with the class standalone the page is
    /// as large as the figure.
    fn tex(&self) -> String;
}

/// Colours that the colour-blind can tell apart (Okabe and Ito 2008).
const COLOURS: [(u8, u8, u8); 8] = [
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (0, 0, 0),
    (153, 153, 153),
];

/// A picture in TikZ as a document.
fn document(picture: &str) -> String {
    filled(include_str!("../../templates/figure.tex"), context! { picture }) + "\n"
}

/// A colour as TikZ takes it.
fn tikz((red, green, blue): (u8, u8, u8)) -> String {
    format!("{{rgb,255:red,{red};green,{green};blue,{blue}}}")
}

/// Data set, network, checkpoint.
type Place<'a> = (&'a str, &'a str, Checkpoint);

fn place(row: &Row) -> Place<'_> {
    (&row.dataset, &row.network, row.checkpoint)
}

/// Words as a name in files.
fn name(words: &[&str]) -> String {
    let lower = words.join(" ").to_lowercase();
    let plain = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    plain.collect::<Vec<_>>().join("-")
}

/// Numbers figures of one name.
fn apart<T>(figures: &mut [T], id: impl Fn(&mut T) -> &mut String) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for figure in figures {
        let id = id(figure);
        let count = seen.entry(id.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            *id += &format!("-{count}");
        }
    }
}

/// The place of a key in a list, at whose end it is added if it is new.
fn known<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let place = list.iter().position(|(it, _)| *it == key);
    let place = place.unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[place].1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn names_differ() {
        assert_eq!(name(&["queries", "digits", "Square (ε)"]), "queries-digits-square");
        let mut names = ["a", "b", "a"].map(String::from);
        apart(&mut names, |it| it);
        assert_eq!(names, ["a", "b", "a-2"]);
    }

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
        let pair = |outcome| Pair {
            before: awkward.clone(),
            after: awkward.clone(),
            outcome,
            change: pixels(0.5),
            attacked: pixels(0.2),
        };
        let images = Gallery {
            id: "awkward-images".to_string(),
            title: awkward.clone(),
            times: "2.5".to_string(),
            clean: [7, 9]
                .map(|id| Clean {
                    id,
                    label: awkward.clone(),
                    image: pixels(0.7),
                })
                .into(),
            lines: vec![Attacked {
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
            samples::compile(figure.id(), &figure.tex());
        }
    }
}
