//! Figures: each as SVG for pages, as LaTeX for papers, and as CSV of its points for programs.

mod bars;
mod chart;
mod epsilon;
mod examples;
mod figure;
mod heat;
mod learning;
mod names;
mod overfitting;
mod pixels;
mod queries;
mod scene;
mod svg;
#[cfg(test)]
mod tests;
mod tikz;
mod transfer;
mod weight;

pub use self::bars::{Bar, Bars};
pub use self::chart::{Chart, Curve, Point};
pub use self::epsilon::epsilon_charts;
pub use self::examples::{AttackedImage, AttackedImages, CleanImage, ExampleImages};
pub(crate) use self::figure::COLOURS;
pub use self::figure::Figure;
pub use self::heat::HeatMap;
pub(crate) use self::heat::shade;
pub use self::learning::{Epoch, History, learning_charts};
pub(crate) use self::names::file_name;
pub use self::overfitting::overfitting_bars;
pub use self::pixels::{Image, Pixels, magnification};
pub use self::queries::query_charts;
pub(crate) use self::svg::colour;
pub use self::transfer::transfer_maps;
pub use self::weight::{Weight, weight_charts};
