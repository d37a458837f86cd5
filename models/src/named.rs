//! Networks with a name of their own.

use crate::body::Body;
use crate::builder::Builder;

/// A network with a name.
pub trait Named: Body + Sized + 'static {
    /// The name in a matrix, in kebab case.
    const NAME: &'static str;
    /// Raised whenever the same parameters start to give other logits. Part of every cell's key.
    const VERSION: u32;
    /// One line for `rampart ls`.
    const SUMMARY: &'static str;
    /// Where the network comes from: authors, year, arXiv number.
    const SOURCE: &'static str;

    /// Why the network cannot take images of this size (channels, height, width) or this number of classes.
    fn check(image: [usize; 3], classes: usize) -> Result<(), String> {
        let _ = (image, classes);
        Ok(())
    }

    /// Makes the layers. Their order decides the random draws that initialise the parameters.
    fn new(make: &mut Builder, image: [usize; 3], classes: usize) -> candle_core::Result<Self>;
}
