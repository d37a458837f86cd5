//! The values of a network for one size of batch, and where programs keep them.

use candle_core::{Result, bail};

use crate::convolution::Geometry;
use crate::cuda::arena::Buffer;
use crate::cuda::launches::place;
use crate::cuda::machine::{Address, Convolve, Extent, Form, Windows, count};
use crate::graph::Graph;

/// The region of the work memory, in every program.
pub(super) const WORK: usize = 0;

/// Where a buffer of the work memory is.
pub(super) fn at(buffer: Buffer) -> Address {
    place(WORK, buffer.start)
}

/// A network whose values have one form and one size of batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch<'a> {
    pub(super) graph: &'a Graph,
    pub(super) form: Form,
    pub(super) size: usize,
}

impl Batch<'_> {
    /// How many classes the logits have.
    ///
    /// # Errors
    /// Logits that are no vector, and values of more numbers than kernels can count.
    pub(super) fn classes(&self) -> Result<usize> {
        for shape in &self.graph.shapes {
            count(self.size * shape.iter().product::<usize>())?;
        }
        match self.graph.shapes[self.graph.last()] {
            [classes, 1, 1] => Ok(classes),
            shape => bail!("logits {shape:?} are no vector"),
        }
    }

    /// The extent of a value.
    pub(super) fn extent(&self, value: usize) -> Extent {
        let [channels, height, width] = self.graph.shapes[value];
        Extent {
            batch: self.size as u32,
            channels: channels as u32,
            area: (height * width) as u32,
        }
    }

    /// Bytes of a value.
    pub(super) fn bytes(&self, value: usize) -> usize {
        self.extent(value).len() as usize * self.form.width()
    }

    /// The windows of a pooling that reads a value; of no size: one for each channel.
    pub(super) fn windows(&self, value: usize, size: Option<usize>) -> Windows {
        let [channels, height, width] = self.graph.shapes[value];
        let images = [self.size, channels, height, width];
        match size {
            Some(size) => Windows::square(images, size),
            None => Windows::whole(images),
        }
    }

    /// A convolution of the graph's over the whole batch.
    pub(super) fn convolve(&self, geometry: Geometry) -> Convolve {
        Convolve {
            geometry: Geometry {
                batch: self.size,
                ..geometry
            },
            form: self.form,
        }
    }
}
