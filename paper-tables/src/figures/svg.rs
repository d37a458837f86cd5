//! A scene as SVG.

use std::fmt::Write as _;

use super::scene::{Anchor, Colour, Scene, Shape, Stroke, Words};
use crate::format::visible;

/// The drawing as a file.
pub(super) fn draw(scene: &Scene<'_>) -> String {
    let [width, height] = scene.size;
    let mut text = format!(
        "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" fill=\"#000000\">\n"
    );
    for shape in &scene.shapes {
        let element = match shape {
            Shape::Rect { frame, fill, stroke } => {
                let fill = fill.map_or_else(|| "none".to_string(), colour);
                let edge = stroke.map_or_else(String::new, edge);
                format!("<rect {} fill=\"{fill}\" {edge}/>", place(frame))
            }
            Shape::Line {
                ends: [x1, y1, x2, y2],
                width,
            } => format!(
                "<line x1=\"{x1:.2}\" y1=\"{y1:.2}\" x2=\"{x2:.2}\" y2=\"{y2:.2}\" stroke=\"#000000\" \
                 stroke-width=\"{width}\"/>"
            ),
            Shape::Words(words) => element(words),
            Shape::Image { frame, pixels } => format!(
                "<image {} style=\"image-rendering:pixelated\" href=\"{}\"/>",
                place(frame),
                pixels.address()
            ),
        };
        writeln!(text, "{element}").expect("writing to a string succeeds");
    }
    text + "</svg>\n"
}

/// A colour as SVG takes it.
pub(crate) fn colour((red, green, blue): Colour) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

fn place([x, y, width, height]: &[f64; 4]) -> String {
    format!("x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\"")
}

/// A width of 1 is SVG's default.
fn edge(stroke: Stroke) -> String {
    let width = match stroke.width {
        1.0 => String::new(),
        width => format!(" stroke-width=\"{width}\""),
    };
    let dashes = if stroke.dotted { " stroke-dasharray=\"2 3\"" } else { "" };
    format!("stroke=\"{}\"{width}{dashes}", colour(stroke.colour))
}

fn element(words: &Words) -> String {
    let [x, y] = words.at;
    let anchor = match words.anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    let fill = words.colour.map(|ink| format!("fill=\"{}\"", colour(ink)));
    let turn = words
        .upright
        .then(|| format!("transform=\"rotate(-90 {x:.2} {y:.2})\""));
    let more: Vec<String> = fill.into_iter().chain(turn).collect();
    format!(
        "<text x=\"{x:.2}\" y=\"{y:.2}\" dy=\"0.35em\" font-size=\"{}\" text-anchor=\"{anchor}\" {}>{}</text>",
        words.size,
        more.join(" "),
        escape(&words.text)
    )
}

fn escape(text: &str) -> String {
    visible(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
