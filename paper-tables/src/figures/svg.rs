//! SVG by hand, for figures that are boxes and words.

use std::fmt::Write as _;

/// A picture that grows.
pub(super) struct Svg {
    text: String,
}

/// Where a word ends.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    /// An empty white picture of so many pixels.
    pub(super) fn new(width: f64, height: f64) -> Self {
        let text = format!(
            "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" fill=\"#000000\">\n"
        );
        let mut svg = Self { text };
        svg.rect([0.0, 0.0, width, height], "#FFFFFF", "");
        svg
    }

    /// A box: left, top, width and height. `more` are attributes.
    pub(super) fn rect(&mut self, [x, y, width, height]: [f64; 4], fill: &str, more: &str) {
        writeln!(
            self.text,
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"{fill}\" {more}/>"
        )
        .expect("writing to a string succeeds");
    }

    /// An image, its pixels as they are.
    pub(super) fn image(&mut self, [x, y, width, height]: [f64; 4], address: &str) {
        writeln!(
            self.text,
            "<image x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" \
             style=\"image-rendering:pixelated\" href=\"{address}\"/>"
        )
        .expect("writing to a string succeeds");
    }

    /// A black line.
    pub(super) fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], width: f64) {
        writeln!(
            self.text,
            "<line x1=\"{x1:.2}\" y1=\"{y1:.2}\" x2=\"{x2:.2}\" y2=\"{y2:.2}\" stroke=\"#000000\" \
             stroke-width=\"{width}\"/>"
        )
        .expect("writing to a string succeeds");
    }

    /// Words, whose middle line is at `y`. `more` are attributes.
    pub(super) fn words(&mut self, [x, y]: [f64; 2], size: u32, anchor: Anchor, words: &str, more: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        writeln!(
            self.text,
            "<text x=\"{x:.2}\" y=\"{y:.2}\" dy=\"0.35em\" font-size=\"{size}\" text-anchor=\"{anchor}\" {more}>{}</text>",
            escape(words)
        )
        .expect("writing to a string succeeds");
    }

    /// The whole picture.
    pub(super) fn finish(self) -> String {
        self.text + "</svg>\n"
    }
}

/// About how wide a word is, in pixels.
pub(super) fn width(word: &str, size: u32) -> f64 {
    0.6 * f64::from(size) * word.chars().count() as f64
}

/// A colour as SVG takes it.
pub(crate) fn colour((red, green, blue): (u8, u8, u8)) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
