//! A heat map: a number in every box, and a shade that is darker the larger it is.

use super::figure::Figure;
use super::scene::{self, Anchor, Colour, Scene, Words};
use super::{svg, tikz};
use crate::format::percent;
use crate::records::Records;

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

    fn scene(&self) -> Scene<'_> {
        let longest = |labels: &[String]| labels.iter().map(|label| scene::width(label, 13)).fold(40.0, f64::max);
        let (left, top) = (longest(&self.lines) + 40.0, longest(&self.columns).min(220.0) + 64.0);
        let [width, height] = BOX;
        let [across, down] = [width * self.columns.len() as f64, height * self.lines.len() as f64];
        let mut scene = Scene::new(
            (left + across + 12.0).max(scene::width(&self.title, 16)),
            top + down + 12.0,
        );
        scene.words(Words::new([8.0, 18.0], 16, Anchor::Start, &self.title));
        scene.words(Words::new(
            [left + across / 2.0, 42.0],
            13,
            Anchor::Middle,
            &self.column,
        ));
        scene.words(Words::new([14.0, top + down / 2.0], 13, Anchor::Middle, &self.line).upright());
        for (place, label) in self.lines.iter().enumerate() {
            let at = top + height * (place as f64 + 0.5);
            scene.words(Words::new([left - 6.0, at], 13, Anchor::End, label));
        }
        for (place, label) in self.columns.iter().enumerate() {
            let at = left + width * (place as f64 + 0.5);
            scene.words(Words::new([at, top - 6.0], 13, Anchor::Start, label).upright());
        }
        for (line, column, value) in self.boxes() {
            let (x, y) = (left + width * column as f64, top + height * line as f64);
            let (ground, ink) = value.map_or(((255, 255, 255), INK[0]), shade);
            scene.tile([x, y, width, height], ground);
            let text = value.map_or_else(|| "—".to_string(), percent);
            let middle = [x + width / 2.0, y + height / 2.0];
            scene.words(Words::new(middle, 13, Anchor::Middle, &text).coloured(ink));
        }
        scene
    }
}

/// A box, in pixels.
const BOX: [f64; 2] = [64.0, 34.0];

impl Figure for HeatMap {
    fn id(&self) -> &str {
        &self.id
    }

    fn csv(&self) -> String {
        let mut records = Records::new(["chart", &self.line, &self.column, "value"]);
        for (line, column, value) in self.boxes() {
            let value = value.map_or_else(String::new, |value| format!("{value:.4}"));
            records.add([&self.id, &self.lines[line], &self.columns[column], &value]);
        }
        records.finish()
    }

    fn svg(&self) -> String {
        svg::draw(&self.scene())
    }

    fn tex(&self) -> String {
        tikz::draw(&self.scene())
    }
}

/// Black and white.
const INK: [Colour; 2] = [(0, 0, 0), (255, 255, 255)];

/// A number's shade, from pale yellow at 0 to deep blue at 100, and the ink that can be read on it. Lightness alone tells
/// shades apart, so it can be read without colours; the ends are those of cividis (Nuñez et al. 2018, PLOS ONE 13).
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
        if value <= 0.03928 {
            value / 12.92
        } else {
            ((value + 0.055) / 1.055).powf(2.4)
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
