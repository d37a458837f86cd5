//! A frozen network, packed for the CPU.

use std::sync::Mutex;

use super::workspace::Workspace;
use crate::activation::Activation;
use crate::convolution::{Part, Sink, Winograd};
use crate::frame::Frame;

/// A network whose weights are laid out as the passes read them.
pub(super) struct Plan {
    /// How each value and its gradient are laid out in memory.
    pub(super) frames: Vec<Frame>,
    pub(super) gradient_frames: Vec<Frame>,
    pub(super) steps: Vec<Step>,
    /// For each step, the values that it is the last to read.
    pub(super) last_reads: Vec<Vec<usize>>,
    /// Images that go through all layers together.
    pub(super) group: usize,
    pub(super) workspaces: Mutex<Vec<Workspace>>,
}

/// One layer: from value `input` to the next value.
pub(super) struct Step {
    pub(super) input: usize,
    pub(super) layer: Layer,
}

pub(super) enum Layer {
    Convolution(Box<Convolution>),
    /// max(scale · x + shift, 0) per channel.
    ScaleShiftRelu {
        scale: Vec<f32>,
        shift: Vec<f32>,
    },
    MaxPool(usize),
    MeanPerChannel,
}

/// relu(w ∗ x + bias + residual), with residual and ReLU only if the layer has them.
pub(super) struct Convolution {
    pub(super) forward: Method,
    pub(super) backward: Method,
    pub(super) bias: Vec<f32>,
    pub(super) residual: Option<usize>,
    pub(super) activation: Activation,
}

/// How a correlation of frames is computed.
pub(super) enum Method {
    /// As products with the frame's numbers in place.
    Direct(Vec<Part<f32>>),
    Winograd(Winograd),
}

/// After a ReLU, for every number of the result's frames, 1 where it is not zero. After a maximum, its
/// place in the window, without border. Else empty.
pub(super) type Marks = Vec<u8>;

impl Plan {
    /// Runs with a workspace of its own.
    pub(super) fn with_workspace<R>(&self, run: impl FnOnce(&mut Workspace) -> R) -> R {
        let free = || self.workspaces.lock().expect("no pass panicked");
        let taken = free().pop();
        let mut workspace = taken.unwrap_or_default();
        let result = run(&mut workspace);
        free().push(workspace);
        result
    }
}

impl Method {
    /// Computes the correlation; the result is in frames `out`.
    pub(super) fn run(
        &self,
        values: &[f32],
        images: usize,
        input: &Frame,
        out: &Frame,
        work: &mut Workspace,
        sink: &mut impl Sink<f32>,
    ) {
        match self {
            Self::Direct(parts) => {
                for part in parts {
                    part.run(values, images, input.len(), out, sink);
                }
            }
            Self::Winograd(winograd) => winograd.run(values, images, input, out, &mut work.winograd, sink),
        }
    }
}

/// Every row of pixels: image, row.
pub(super) fn rows(images: usize, frame: &Frame) -> impl Iterator<Item = (usize, usize)> + use<> {
    let height = frame.height;
    (0..images).flat_map(move |image| (0..height).map(move |i| (image, i)))
}
