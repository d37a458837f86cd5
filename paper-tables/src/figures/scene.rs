//! A drawing of boxes, lines, words and images, described once for every back end.
//!
//! Units are pixels; y grows downwards.

use super::pixels::Pixels;

/// Red, green, blue.
pub(crate) type Colour = (u8, u8, u8);

/// A drawing.
pub(super) struct Scene<'a> {
    pub(super) size: [f64; 2],
    pub(super) shapes: Vec<Shape<'a>>,
}

/// One element of a drawing. Later ones cover earlier ones.
pub(super) enum Shape<'a> {
    /// Left, top, width and height. Transparent without a fill.
    Rect {
        frame: [f64; 4],
        fill: Option<Colour>,
        stroke: Option<Stroke>,
    },
    /// A black line, from x and y to x and y.
    Line {
        ends: [f64; 4],
        width: f64,
    },
    Words(Words),
    /// An image, its pixels as they are.
    Image {
        frame: [f64; 4],
        pixels: &'a Pixels,
    },
}

/// The edge of a box.
#[derive(Clone, Copy)]
pub(super) struct Stroke {
    pub(super) colour: Colour,
    pub(super) width: f64,
    pub(super) dotted: bool,
}

/// A line of text, whose middle is at the height of `at`.
pub(super) struct Words {
    pub(super) at: [f64; 2],
    pub(super) size: u32,
    pub(super) anchor: Anchor,
    /// Black unless given.
    pub(super) colour: Option<Colour>,
    /// Whether it reads from bottom to top.
    pub(super) upright: bool,
    pub(super) text: String,
}

/// Which end of a text is at the given position.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl<'a> Scene<'a> {
    /// A white drawing.
    pub(super) fn new(width: f64, height: f64) -> Self {
        let mut scene = Self {
            size: [width, height],
            shapes: Vec::new(),
        };
        scene.fill([0.0, 0.0, width, height], (255, 255, 255));
        scene
    }

    /// A box without an edge.
    pub(super) fn fill(&mut self, frame: [f64; 4], fill: Colour) {
        self.shapes.push(Shape::Rect {
            frame,
            fill: Some(fill),
            stroke: None,
        });
    }

    /// A box with a white edge, which keeps it apart from its neighbours.
    pub(super) fn tile(&mut self, frame: [f64; 4], fill: Colour) {
        let stroke = Some(Stroke {
            colour: (255, 255, 255),
            width: 1.0,
            dotted: false,
        });
        self.shapes.push(Shape::Rect {
            frame,
            fill: Some(fill),
            stroke,
        });
    }

    /// An edge alone.
    pub(super) fn frame(&mut self, frame: [f64; 4], stroke: Stroke) {
        self.shapes.push(Shape::Rect {
            frame,
            fill: None,
            stroke: Some(stroke),
        });
    }

    pub(super) fn line(&mut self, ends: [f64; 4], width: f64) {
        self.shapes.push(Shape::Line { ends, width });
    }

    pub(super) fn image(&mut self, frame: [f64; 4], pixels: &'a Pixels) {
        self.shapes.push(Shape::Image { frame, pixels });
    }

    pub(super) fn words(&mut self, words: Words) {
        self.shapes.push(Shape::Words(words));
    }
}

impl Words {
    /// Black words.
    pub(super) fn new(at: [f64; 2], size: u32, anchor: Anchor, text: &str) -> Self {
        Self {
            at,
            size,
            anchor,
            colour: None,
            upright: false,
            text: text.to_string(),
        }
    }

    pub(super) fn coloured(self, colour: Colour) -> Self {
        Self {
            colour: Some(colour),
            ..self
        }
    }

    pub(super) fn upright(self) -> Self {
        Self { upright: true, ..self }
    }
}

/// About how wide a text is.
pub(super) fn width(text: &str, size: u32) -> f64 {
    0.6 * f64::from(size) * text.chars().count() as f64
}
