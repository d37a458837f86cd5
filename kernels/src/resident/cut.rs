//! How windows are cut out of byte images.

/// How byte images are cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// Channels, height, width.
    pub image: [usize; 3],
    /// Pixels added on every side before a window is cut.
    pub pad: usize,
    /// Whether they mirror the image; else they are black.
    pub reflect: bool,
    /// The byte that means 1.
    pub scale: u8,
}
