//! A scene as TikZ, in a document for pdflatex.

use std::fmt::Write as _;

use super::figure::document;
use super::scene::{Anchor, Colour, Scene, Shape, Stroke, Words};
use crate::latex::escape;

/// A pixel in PostScript points, 1/72 inch, which are also the PDF's units.
const PIXEL: f64 = 2.0 / 3.0;

/// Images are part of the document: pdfTeX hands the pixels on to the PDF.
const IMAGES: &str = "\\def\\pixels#1#2#3{\\hbox to #1bp{\\vbox to #2bp{\\vss\\hbox{\\pdfliteral{q #1 0 0 #2 0 0 cm #3 Q}}}\
                      \\hss}}\n";

/// The drawing as a document that compiles on its own.
pub(super) fn draw(scene: &Scene<'_>) -> String {
    let mut text =
        format!("\\begin{{tikzpicture}}[x={PIXEL:.4}bp, y=-{PIXEL:.4}bp, every node/.style={{inner sep=0pt}}]\n");
    if scene.shapes.iter().any(|shape| matches!(shape, Shape::Image { .. })) {
        text += IMAGES;
    }
    for shape in &scene.shapes {
        let command = match shape {
            Shape::Rect { frame, fill, stroke } => {
                let [x, y, width, height] = frame;
                let fill = fill.map(|ground| format!("fill={}", colour(ground)));
                let more: Vec<String> = fill.into_iter().chain(stroke.map(edge)).collect();
                let (right, bottom) = (x + width, y + height);
                format!(
                    "\\path[{}] ({x:.2},{y:.2}) rectangle ({right:.2},{bottom:.2});",
                    more.join(", ")
                )
            }
            Shape::Line {
                ends: [x1, y1, x2, y2],
                width,
            } => format!(
                "\\draw[line width={:.2}bp] ({x1:.2},{y1:.2}) -- ({x2:.2},{y2:.2});",
                width * PIXEL
            ),
            Shape::Words(words) => node(words),
            Shape::Image { frame, pixels } => {
                let [x, y, width, height] = frame;
                format!(
                    "\\node[anchor=south west] at ({x:.2},{:.2}) {{\\pixels{{{:.3}}}{{{:.3}}}{{{}}}}};",
                    y + height,
                    width * PIXEL,
                    height * PIXEL,
                    pixels.inline_image()
                )
            }
        };
        writeln!(text, "{command}").expect("writing to a string succeeds");
    }
    document(&(text + "\\end{tikzpicture}\n"))
}

/// A colour as TikZ takes it.
pub(super) fn colour((red, green, blue): Colour) -> String {
    format!("{{rgb,255:red,{red};green,{green};blue,{blue}}}")
}

fn edge(stroke: Stroke) -> String {
    let dotted = if stroke.dotted { ", dotted" } else { "" };
    format!(
        "draw={}, line width={:.2}bp{dotted}",
        colour(stroke.colour),
        stroke.width * PIXEL
    )
}

fn node(words: &Words) -> String {
    let [x, y] = words.at;
    // At half the height of an x, whatever the letters.
    let anchor = match words.anchor {
        Anchor::Start => "mid west",
        Anchor::Middle => "mid",
        Anchor::End => "mid east",
    };
    let font = match words.size {
        ..=12 => "\\footnotesize",
        13..=15 => "\\small",
        _ => "\\normalsize",
    };
    let ink = words
        .colour
        .map_or_else(String::new, |ink| format!(", text={}", colour(ink)));
    let turn = if words.upright { ", rotate=90" } else { "" };
    format!(
        "\\node[anchor={anchor}, font={font}{ink}{turn}] at ({x:.2},{y:.2}) {{{}}};",
        escape(&words.text)
    )
}
