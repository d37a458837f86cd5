//! What every figure offers, and the colours they share.

use minijinja::context;

use super::scene::Colour;
use crate::latex::{comments, filled};

/// A figure.
pub trait Figure {
    /// The name in files: letters, digits and hyphens.
    fn id(&self) -> &str;

    /// Its points, one per line.
    fn csv(&self) -> String;

    /// For pages.
    fn svg(&self) -> String;

    /// A document for pdflatex and the package pgfplots that compiles on its own; with the class standalone the page is
    /// as large as the figure.
    fn tex(&self) -> String;
}

/// Colours that the colour-blind can tell apart (Okabe and Ito 2008).
pub(crate) const COLOURS: [Colour; 8] = [
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
pub(super) fn document(picture: &str) -> String {
    let document = filled(include_str!("../../templates/figure.tex"), context! { picture }) + "\n";
    comments(picture) + &document
}
