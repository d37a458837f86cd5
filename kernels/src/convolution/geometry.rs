//! The sizes of one convolution, and the stencils that it comes down to.

use candle_core::{Result, bail};

use super::part::{FEW, Grid, Part, Place};
use crate::check::image_dims;
use crate::element::Element;
use crate::frame::Frame;
use crate::product::chain;

/// The sizes of one convolution, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) inputs: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel_height: usize,
    pub(crate) kernel_width: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
}

impl Geometry {
    pub(crate) fn new(images: &[usize], weights: &[usize], stride: usize, padding: usize) -> Result<Self> {
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
            padding,
            out_height: (height + 2 * padding - kernel_height) / stride + 1,
            out_width: (width + 2 * padding - kernel_width) / stride + 1,
        })
    }

    pub(crate) fn input_shape(&self) -> Vec<usize> {
        vec![self.batch, self.inputs, self.height, self.width]
    }

    pub(crate) fn output_shape(&self) -> Vec<usize> {
        vec![self.batch, self.outputs, self.out_height, self.out_width]
    }

    pub(crate) fn weight_shape(&self) -> Vec<usize> {
        vec![self.outputs, self.inputs, self.kernel_height, self.kernel_width]
    }

    /// Channels, height and width of the result.
    pub(crate) fn out_shape(&self) -> [usize; 3] {
        [self.outputs, self.out_height, self.out_width]
    }

    /// Numbers per input image.
    pub(crate) fn input_len(&self) -> usize {
        self.inputs * self.height * self.width
    }

    /// Numbers per output image.
    pub(crate) fn output_len(&self) -> usize {
        self.outputs * self.out_pixels()
    }

    pub(crate) fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    pub(crate) fn kernel_pixels(&self) -> usize {
        self.kernel_height * self.kernel_width
    }

    /// Input numbers that one output number is made of.
    pub(crate) fn patch(&self) -> usize {
        self.inputs * self.kernel_pixels()
    }

    /// Images with the border that [`Self::forward`] reads.
    pub(crate) fn input_frame(&self) -> Frame {
        Frame {
            channels: self.inputs,
            height: self.height,
            width: self.width,
            before: [self.padding; 2],
            full: [self.height + 2 * self.padding, self.width + 2 * self.padding],
        }
    }

    /// The convolution itself, over frames with this border or more.
    pub(crate) fn forward<T: Element>(&self, weights: &[T], frame: &Frame) -> Part<T> {
        let (row, inputs) = (frame.row_step(), self.inputs);
        // A kernel row's pixels lie side by side, channels and all.
        let taps: Vec<usize> = (0..self.kernel_height).map(|r| r * row).collect();
        let value = |k: usize, output: usize| {
            let (r, rest) = (k / (self.kernel_width * inputs), k % (self.kernel_width * inputs));
            let (s, c) = (rest / inputs, rest % inputs);
            weights[((output * inputs + c) * self.kernel_height + r) * self.kernel_width + s]
        };
        let grid = Grid {
            origin: (frame.before[0] - self.padding) * row + (frame.before[1] - self.padding) * inputs,
            row_step: self.stride * row,
            step: self.stride * inputs,
            height: self.out_height,
            width: self.out_width,
            place: Place {
                top: 0,
                left: 0,
                stride: 1,
            },
            beside: 1,
        };
        Part::new(grid, &taps, self.kernel_width * inputs, self.outputs, value)
    }

    /// The gradient to the images, over frames of the output's gradient with the border of
    /// [`Self::gradient_frame`] or more: one part for each remainder of the image's rows and columns modulo the stride. Pixel
    /// y = stride·i + top receives kernel row r from output row i + (top + padding − r) / stride, where
    /// that divides.
    pub(crate) fn backward<T: Element>(&self, weights: &[T], frame: &Frame) -> Vec<Part<T>> {
        if self.is_whole() {
            self.backward_of_whole(weights, frame)
        } else {
            self.backward_by_stencils(weights, frame)
        }
    }

    fn backward_by_stencils<T: Element>(&self, weights: &[T], frame: &Frame) -> Vec<Part<T>> {
        let (rows, columns) = self.axes();
        let [above, beside] = [frame.before[0] - rows.before, frame.before[1] - columns.before];
        let mut parts = Vec::new();
        for (top, vertical) in rows.taps.iter().enumerate() {
            for (left, horizontal) in columns.taps.iter().enumerate() {
                let height = (self.height - top.min(self.height)).div_ceil(self.stride);
                let width = (self.width - left.min(self.width)).div_ceil(self.stride);
                if vertical.is_empty() || horizontal.is_empty() || height * width == 0 {
                    continue;
                }
                // From left to right in memory, so that neighbours are one run.
                let mut horizontal = horizontal.clone();
                horizontal.sort_by_key(|&(_, distance)| distance);
                let first = horizontal[0].1;
                debug_assert!(horizontal.iter().enumerate().all(|(i, &(_, at))| at == first + i));
                let taps: Vec<usize> = vertical
                    .iter()
                    .map(|&(_, down)| down * frame.row_step() + first * self.outputs)
                    .collect();
                let run = horizontal.len() * self.outputs;
                let value = |depth: usize, channel: usize| {
                    let (r, _) = vertical[depth / run];
                    let (s, _) = horizontal[depth % run / self.outputs];
                    let k = depth % self.outputs;
                    weights[((k * self.inputs + channel) * self.kernel_height + r) * self.kernel_width + s]
                };
                let grid = Grid {
                    origin: above * frame.row_step() + beside * self.outputs,
                    row_step: frame.row_step(),
                    step: self.outputs,
                    height,
                    width,
                    place: Place {
                        top,
                        left,
                        stride: self.stride,
                    },
                    beside: 1,
                };
                parts.push(Part::new(grid, &taps, run, self.inputs, value));
            }
        }
        parts
    }

    /// Whether the kernel is as large as the image, as that of a fully connected layer is: then every pixel has one
    /// tap, where the general stencil would mostly read zeros beside the only output pixel.
    ///
    /// Only where that leaves out nothing but zeros: where the general one sums in the same chains.
    fn is_whole(&self) -> bool {
        let covers = (self.kernel_height, self.kernel_width) == (self.height, self.width) && self.padding == 0;
        let chain = chain(self.kernel_width * self.outputs);
        let same = chain.is_multiple_of(self.outputs)
            || (self.outputs.is_multiple_of(chain) && chain == self::chain(self.outputs));
        covers && same && self.inputs > FEW
    }

    /// As [`Self::backward`], one part for each row of the image, whose pixels and channels lie side by side.
    fn backward_of_whole<T: Element>(&self, weights: &[T], frame: &Frame) -> Vec<Part<T>> {
        let rows = 0..self.height;
        let part = |row: usize| {
            let value = |k: usize, column: usize| {
                let (pixel, channel) = (column / self.inputs, column % self.inputs);
                weights[((k * self.inputs + channel) * self.height + row) * self.width + pixel]
            };
            let grid = Grid {
                origin: frame.at(0, 0),
                row_step: 0,
                step: 0,
                height: 1,
                width: 1,
                place: Place {
                    top: row,
                    left: 0,
                    stride: 1,
                },
                beside: self.width,
            };
            Part::new(grid, &[0], self.outputs, self.width * self.inputs, value)
        };
        rows.map(part).collect()
    }

    /// The output's gradient with the border that [`Self::backward`] reads.
    pub(crate) fn gradient_frame(&self) -> Frame {
        if self.is_whole() {
            Frame::bare(self.out_shape())
        } else {
            self.stencils_frame()
        }
    }

    fn stencils_frame(&self) -> Frame {
        let (rows, columns) = self.axes();
        Frame {
            channels: self.outputs,
            height: self.out_height,
            width: self.out_width,
            before: [rows.before, columns.before],
            full: [rows.full, columns.full],
        }
    }

    fn axes(&self) -> (Axis, Axis) {
        let axis = |size, kernel, out| Axis::new(size, kernel, self.stride, self.padding, out);
        (
            axis(self.height, self.kernel_height, self.out_height),
            axis(self.width, self.kernel_width, self.out_width),
        )
    }
}

/// One direction of the gradient to the images.
struct Axis {
    /// Zeros before the output's gradient, and its size with zeros before and after.
    before: usize,
    full: usize,
    /// For every remainder: kernel index, and where it reads in the padded gradient for the first pixel.
    taps: Vec<Vec<(usize, usize)>>,
}

impl Axis {
    fn new(size: usize, kernel: usize, stride: usize, padding: usize, out: usize) -> Self {
        let signed = |value: usize| value as isize;
        let shifts = |first: usize| -> Vec<(usize, isize)> {
            (0..kernel)
                .map(|r| (r, signed(first + padding) - signed(r)))
                .filter(|(_, distance)| distance.rem_euclid(signed(stride)) == 0)
                .map(|(r, distance)| (r, distance.div_euclid(signed(stride))))
                .collect()
        };
        let all: Vec<Vec<(usize, isize)>> = (0..stride).map(shifts).collect();
        let lowest = all.iter().flatten().map(|&(_, shift)| shift).min().unwrap_or(0);
        let highest = all.iter().flatten().map(|&(_, shift)| shift).max().unwrap_or(0);
        let before = (-lowest).max(0);
        let last = signed(size.div_ceil(stride)) - 1 + highest;
        let after = (last - (signed(out) - 1)).max(0);
        let taps = all.into_iter().map(|taps| {
            let padded = taps.into_iter().map(|(r, shift)| (r, (shift + before) as usize));
            padded.collect()
        });
        Self {
            before: before as usize,
            full: (before + after) as usize + out,
            taps: taps.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convolution::part::correlate;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0)
            .collect()
    }

    #[test]
    fn a_whole_kernel_gives_the_bits_of_the_stencils() {
        // Channels, height and width, and outputs: fully connected layers of networks of the literature.
        for ([channels, height, width], outputs) in [
            ([32, 4, 4], 10),
            ([16, 14, 14], 10),
            ([64, 4, 4], 200),
            ([8, 7, 7], 1024),
            ([512, 1, 1], 10),
            ([5, 3, 2], 7),
        ] {
            let geometry =
                Geometry::new(&[3, channels, height, width], &[outputs, channels, height, width], 1, 0).unwrap();
            assert!(geometry.is_whole());
            let weights = numbers(outputs * geometry.patch(), 1);
            let gradient = numbers(3 * outputs, 2);
            let image = [channels, height, width];
            let frame = geometry.gradient_frame();
            let parts = geometry.backward_of_whole(&weights, &frame);
            assert_eq!(parts.iter().map(Part::covered).sum::<usize>(), height * width);
            let whole = correlate(&frame, &gradient, &parts, image, |_| {});
            let frame = geometry.stencils_frame();
            let parts = geometry.backward_by_stencils(&weights, &frame);
            let stencils = correlate(&frame, &gradient, &parts, image, |_| {});
            assert!(whole.iter().any(|&value| value != 0.0));
            assert_eq!(whole, stencils, "{channels}x{height}x{width} to {outputs}");
        }
        // The chains of the stencils, 500 long, would cut those of 200.
        assert!(
            !Geometry::new(&[1, 64, 5, 5], &[200, 64, 5, 5], 1, 0)
                .unwrap()
                .is_whole()
        );
        assert!(!Geometry::new(&[1, 64, 5, 5], &[10, 64, 3, 3], 1, 0).unwrap().is_whole());
    }
}
