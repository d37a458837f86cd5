//! Memory of one task, used again by the next.

use crate::convolution::Scratch;

/// Buffers that outlive a task.
#[derive(Default)]
pub(super) struct Workspace {
    free: Vec<Vec<f32>>,
    /// An image with its border.
    pub(super) border: Vec<f32>,
    /// A panel of a product.
    pub(super) panel: Vec<f32>,
    pub(super) winograd: Scratch,
}

impl Workspace {
    /// A buffer of a length; its numbers may be anything.
    pub(super) fn take(&mut self, len: usize) -> Vec<f32> {
        let mut buffer = self.free.pop().unwrap_or_default();
        buffer.resize(len, 0.0);
        buffer
    }

    /// Gives a buffer back.
    pub(super) fn give(&mut self, buffer: Vec<f32>) {
        self.free.push(buffer);
    }
}
