//! The sizes of one convolution.

use candle_core::{Result, bail};

use super::image_dims;

/// The sizes of one convolution, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) inputs: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) outputs: usize,
    pub(super) kernel_height: usize,
    pub(super) kernel_width: usize,
    pub(super) stride: usize,
    pub(super) padding_height: usize,
    pub(super) padding_width: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
}

impl Geometry {
    pub(super) fn new(images: &[usize], weights: &[usize], stride: usize, padding: usize) -> Result<Self> {
        let [batch, inputs, height, width] = image_dims("conv2d", images)?;
        let &[outputs, weight_inputs, kernel_height, kernel_width] = weights else {
            bail!("conv2d: weights must be [K, C, R, S], not {weights:?}");
        };
        if inputs != weight_inputs || inputs == 0 || outputs == 0 {
            bail!("conv2d: images {images:?} do not have the channels of weights {weights:?}");
        }
        if kernel_height == 0 || kernel_width == 0 || stride == 0 {
            bail!("conv2d: weights {weights:?} with stride {stride} are empty");
        }
        if height + 2 * padding < kernel_height || width + 2 * padding < kernel_width || height == 0 || width == 0 {
            bail!("conv2d: images {images:?} with padding {padding} are smaller than weights {weights:?}");
        }
        Ok(Self {
            batch,
            inputs,
            height,
            width,
            outputs,
            kernel_height,
            kernel_width,
            stride,
            padding_height: padding,
            padding_width: padding,
            out_height: (height + 2 * padding - kernel_height) / stride + 1,
            out_width: (width + 2 * padding - kernel_width) / stride + 1,
        })
    }

    /// The convolution by which a gradient of the output becomes one of the input: the output's
    /// channels go in, the input's come out, with the kernel turned by 180°. `None` if it is not one.
    pub(super) fn backward(&self) -> Option<Self> {
        if self.stride != 1 || self.padding_height >= self.kernel_height || self.padding_width >= self.kernel_width {
            return None;
        }
        Some(Self {
            inputs: self.outputs,
            outputs: self.inputs,
            height: self.out_height,
            width: self.out_width,
            out_height: self.height,
            out_width: self.width,
            padding_height: self.kernel_height - 1 - self.padding_height,
            padding_width: self.kernel_width - 1 - self.padding_width,
            ..*self
        })
    }

    /// The same convolution over fewer input channels.
    pub(super) fn with_inputs(&self, inputs: usize) -> Self {
        Self { inputs, ..*self }
    }

    pub(super) fn input_shape(&self) -> Vec<usize> {
        vec![self.batch, self.inputs, self.height, self.width]
    }

    pub(super) fn output_shape(&self) -> Vec<usize> {
        vec![self.batch, self.outputs, self.out_height, self.out_width]
    }

    pub(super) fn weight_shape(&self) -> Vec<usize> {
        vec![self.outputs, self.inputs, self.kernel_height, self.kernel_width]
    }

    /// Numbers per input image.
    pub(super) fn input_len(&self) -> usize {
        self.inputs * self.height * self.width
    }

    /// Numbers per output image.
    pub(super) fn output_len(&self) -> usize {
        self.outputs * self.out_pixels()
    }

    pub(super) fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    pub(super) fn kernel_pixels(&self) -> usize {
        self.kernel_height * self.kernel_width
    }

    /// Input numbers that one output number is made of.
    pub(super) fn patch(&self) -> usize {
        self.inputs * self.kernel_pixels()
    }

    /// How many output rows are worked on at once: as many as keep the image columns in the
    /// second-level cache.
    pub(super) fn tile_rows(&self) -> usize {
        const COLUMNS: usize = 1 << 16;
        (COLUMNS / (self.patch() * self.out_width)).clamp(1, self.out_height)
    }
}
