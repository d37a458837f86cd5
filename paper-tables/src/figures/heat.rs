//! A heat map: a number in every box, and a shade that is darker the larger it is.

use std::fmt::Write as _;

use super::figure::{Figure, document, tikz};
use super::svg;
use super::svg::{Anchor, Svg, colour};
use crate::csv::quote;
use crate::format::percent;
use crate::latex::escape;

/// A heat map of numbers from 0 to 100.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    /// The name in files: letters, digits and hyphens.
    pub id: String,
    /// The title.
    pub title: String,
    /// What a line is.
    pub line: String,
    /// What a column is.
    pub column: String,
    /// Labels of the lines.
    pub lines: Vec<String>,
    /// Labels of the columns.
    pub columns: Vec<String>,
    /// By line and column. `None`: there is no number.
    pub values: Vec<Vec<Option<f64>>>,
}

impl HeatMap {
    fn boxes(&self) -> impl Iterator<Item = (usize, usize, Option<f64>)> {
        let lines = self.values.iter().enumerate();
        lines.flat_map(|(line, values)| {
            values
                .iter()
                .enumerate()
                .map(move |(column, value)| (line, column, *value))
        })
    }
}

/// A box, in pixels.
const BOX: [f64; 2] = [64.0, 34.0];

impl Figure for HeatMap {
    fn id(&self) -> &str {
        &self.id
    }

    fn csv(&self) -> String {
        let mut text = format!("chart,{},{},value\n", quote(&self.line), quote(&self.column));
        for (line, column, value) in self.boxes() {
            let names = [&self.id, &self.lines[line], &self.columns[column]]
                .map(|it| quote(it))
                .join(",");
            let value = value.map_or_else(String::new, |it| format!("{it:.4}"));
            writeln!(text, "{names},{value}").expect("writing to a string succeeds");
        }
        text
    }

    fn svg(&self) -> String {
        let longest = |labels: &[String]| labels.iter().map(|it| svg::width(it, 13)).fold(40.0, f64::max);
        let (left, top) = (longest(&self.lines) + 40.0, longest(&self.columns).min(220.0) + 64.0);
        let [width, height] = BOX;
        let [across, down] = [width * self.columns.len() as f64, height * self.lines.len() as f64];
        let mut picture = Svg::new(
            (left + across + 12.0).max(svg::width(&self.title, 16)),
            top + down + 12.0,
        );
        picture.words([8.0, 18.0], 16, Anchor::Start, &self.title, "");
        picture.words([left + across / 2.0, 42.0], 13, Anchor::Middle, &self.column, "");
        let middle = top + down / 2.0;
        let turned = format!("transform=\"rotate(-90 14 {middle:.2})\"");
        picture.words([14.0, middle], 13, Anchor::Middle, &self.line, &turned);
        for (place, label) in self.lines.iter().enumerate() {
            let at = top + height * (place as f64 + 0.5);
            picture.words([left - 6.0, at], 13, Anchor::End, label, "");
        }
        for (place, label) in self.columns.iter().enumerate() {
            let at = left + width * (place as f64 + 0.5);
            let turned = format!("transform=\"rotate(-90 {at:.2} {:.2})\"", top - 6.0);
            picture.words([at, top - 6.0], 13, Anchor::Start, label, &turned);
        }
        for (line, column, value) in self.boxes() {
            let (x, y) = (left + width * column as f64, top + height * line as f64);
            let (ground, ink) = value.map_or(((255, 255, 255), INK[0]), shade);
            picture.rect([x, y, width, height], &colour(ground), "stroke=\"#FFFFFF\"");
            let text = value.map_or_else(|| "—".to_string(), percent);
            let ink = format!("fill=\"{}\"", colour(ink));
            picture.words([x + width / 2.0, y + height / 2.0], 13, Anchor::Middle, &text, &ink);
        }
        picture.finish()
    }

    fn tex(&self) -> String {
        const WIDTH: f64 = 1.5;
        const HEIGHT: f64 = 0.8;
        let mut text = "\\begin{tikzpicture}[font=\\small]\n".to_string();
        let node = |at: (f64, f64), more: &str, words: &str| {
            format!("\\node[{more}] at ({:.2},{:.2}) {{{words}}};\n", at.0, at.1)
        };
        for (line, column, value) in self.boxes() {
            let (x, y) = (WIDTH * column as f64, -HEIGHT * line as f64);
            let (ground, ink) = value.map_or(((255, 255, 255), INK[0]), shade);
            writeln!(
                text,
                "\\fill[{}, draw=white] ({x:.2},{y:.2}) rectangle +({WIDTH},{HEIGHT});",
                tikz_fill(ground)
            )
            .expect("writing to a string succeeds");
            let words = value.map_or_else(|| "---".to_string(), percent);
            let centre = (x + WIDTH / 2.0, y + HEIGHT / 2.0);
            text += &node(centre, &format!("text={}", tikz(ink)), &words);
        }
        for (place, label) in self.lines.iter().enumerate() {
            text += &node((-0.1, HEIGHT * (0.5 - place as f64)), "anchor=east", &escape(label));
        }
        for (place, label) in self.columns.iter().enumerate() {
            let at = (WIDTH * (place as f64 + 0.5), HEIGHT + 0.1);
            text += &node(at, "anchor=west, rotate=90", &escape(label));
        }
        text += &format!(
            "\\node[anchor=south west, font=\\normalsize, align=left] at (current bounding box.north west) {{{}\\\\\
             \\footnotesize lines: {}; columns: {}}};\n",
            escape(&self.title),
            escape(&self.line),
            escape(&self.column)
        );
        document(&(text + "\\end{tikzpicture}\n"))
    }
}

fn tikz_fill(ground: (u8, u8, u8)) -> String {
    format!("fill={}", tikz(ground))
}

type Colour = (u8, u8, u8);

/// Black and white.
const INK: [Colour; 2] = [(0, 0, 0), (255, 255, 255)];

/// A number's shade, from pale yellow at 0 to deep blue at 100, and the ink that can be read on it. Lightness alone tells
/// shades apart, so that nobody needs to see colours; the ends are those of cividis (Nuñez et al. 2018, PLOS ONE 13).
pub(crate) fn shade(value: f64) -> (Colour, Colour) {
    let share = (value / 100.0).clamp(0.0, 1.0);
    let (pale, deep) = ([254.0, 232.0, 56.0], [0.0, 34.0, 78.0]);
    let mix = |channel: usize| -> u8 {
        let mixed: f64 = pale[channel] + (deep[channel] - pale[channel]) * share;
        mixed.round() as u8
    };
    let ground = (mix(0), mix(1), mix(2));
    let [on_black, on_white] = INK.map(|ink| contrast(ground, ink));
    (ground, if on_black >= on_white { INK[0] } else { INK[1] })
}

/// By WCAG 2.1: 1 to 21.
fn contrast(one: Colour, other: Colour) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

fn luminance((red, green, blue): Colour) -> f64 {
    let [red, green, blue] = [red, green, blue].map(|value| {
        let value = f64::from(value) / 255.0;
        match value <= 0.03928 {
            true => value / 12.92,
            false => ((value + 0.055) / 1.055).powf(2.4),
        }
    });
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_darken_evenly_and_can_be_read() {
        let mut before = 1.0;
        for value in 0..=100 {
            let (ground, ink) = shade(f64::from(value));
            assert!(contrast(ground, ink) >= 4.5, "{value}: {}", contrast(ground, ink));
            assert!(luminance(ground) < before, "{value}");
            before = luminance(ground);
        }
    }
}
