//! Memory of one task, used again by the next.

use std::collections::HashMap;

use crate::convolution::Scratch;
use crate::frame::Frame;
use crate::product::SLACK;

/// Buffers that outlive a task.
#[derive(Default)]
pub(super) struct Workspace {
    /// Frames that are free. Their borders are zero, since what writes a frame leaves its border alone.
    free: HashMap<Frame, Vec<Vec<f32>>>,
    pub(super) winograd: Scratch,
}

impl Workspace {
    /// Room for `images` frames; what is inside the border may be anything.
    pub(super) fn take(&mut self, frame: &Frame, images: usize) -> Vec<f32> {
        let len = images * frame.len() + SLACK;
        let mut buffer = self.free.get_mut(frame).and_then(Vec::pop).unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        buffer
    }

    /// Gives room back.
    pub(super) fn give(&mut self, frame: &Frame, buffer: Vec<f32>) {
        self.free.entry(*frame).or_default().push(buffer);
    }
}
