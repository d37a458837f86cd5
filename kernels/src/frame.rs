//! Images with their channels side by side and a border of zeros, as convolutions read them.

use std::ops::Range;

use crate::element::Element;
use crate::product::SLACK;
use crate::transpose::transpose;

/// The layout `[full height, full width, channels]` of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Frame {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Rows above, and columns to the left, of the image.
    pub(crate) before: [usize; 2],
    /// Height and width with the border.
    pub(crate) full: [usize; 2],
}

impl Frame {
    /// An image without border.
    pub(crate) fn bare([channels, height, width]: [usize; 3]) -> Self {
        Self {
            channels,
            height,
            width,
            before: [0; 2],
            full: [height, width],
        }
    }

    /// The smallest frame that has the border of both.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let after = |frame: &Self, axis: usize, size: usize| frame.full[axis] - frame.before[axis] - size;
        let sizes = [self.height, self.width];
        let before = std::array::from_fn(|axis| self.before[axis].max(other.before[axis]));
        let full = std::array::from_fn(|axis| {
            let size = sizes[axis];
            before[axis] + size + after(self, axis, size).max(after(other, axis, size))
        });
        Self { before, full, ..*self }
    }

    /// Numbers per image, border included.
    pub(crate) fn len(&self) -> usize {
        self.full[0] * self.full[1] * self.channels
    }

    /// Numbers per image, without the border.
    pub(crate) fn bare_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Where pixel (i, j) begins.
    #[inline(always)]
    pub(crate) fn at(&self, i: usize, j: usize) -> usize {
        ((i + self.before[0]) * self.full[1] + j + self.before[1]) * self.channels
    }

    /// Numbers from a row to the next.
    pub(crate) fn row_step(&self) -> usize {
        self.full[1] * self.channels
    }

    /// Where the numbers of image row i are.
    pub(crate) fn row(&self, i: usize) -> Range<usize> {
        let start = self.at(i, 0);
        start..start + self.width * self.channels
    }

    /// Lays out images `[N, C, H, W]` one after the other.
    pub(crate) fn gather<T: Element>(&self, images: &[T], frames: &mut Vec<T>) {
        self.gather_channels(images, self.channels, 0..self.channels, frames);
    }

    /// As [`gather`](Self::gather), for some of `all` channels.
    pub(crate) fn gather_channels<T: Element>(
        &self,
        images: &[T],
        all: usize,
        channels: Range<usize>,
        frames: &mut Vec<T>,
    ) {
        let count = images.len() / (all * self.height * self.width).max(1);
        frames.clear();
        frames.resize(count * self.len() + SLACK, T::zero());
        self.fill_channels(images, all, channels, frames);
    }

    /// Writes images `[N, C, H, W]` into frames whose border is already zero.
    pub(crate) fn fill<T: Element>(&self, images: &[T], frames: &mut [T]) {
        self.fill_channels(images, self.channels, 0..self.channels, frames);
    }

    fn fill_channels<T: Element>(&self, images: &[T], all: usize, channels: Range<usize>, frames: &mut [T]) {
        debug_assert_eq!(channels.len(), self.channels);
        let area = self.height * self.width;
        for (image, frame) in images.chunks_exact(all * area).zip(frames.chunks_exact_mut(self.len())) {
            let planes = &image[channels.start * area..channels.end * area];
            for (pixel, width, start) in self.lines() {
                let size = [self.channels, width];
                transpose(&planes[pixel..], area, &mut frame[start..], self.channels, size);
            }
        }
    }

    /// Puts the border around images `[N, H, W, C]`, in `frames` unless there is none. What comes back may
    /// lack [`SLACK`].
    pub(crate) fn surround<'a, T: Element>(&self, images: &'a [T], frames: &'a mut Vec<T>) -> &'a [T] {
        if self.len() == self.bare_len() {
            return images;
        }
        frames.clear();
        frames.resize(images.len() / self.bare_len() * self.len() + SLACK, T::zero());
        for (image, frame) in images
            .chunks_exact(self.bare_len())
            .zip(frames.chunks_exact_mut(self.len()))
        {
            for (i, row) in image.chunks_exact(self.width * self.channels).enumerate() {
                frame[self.row(i)].copy_from_slice(row);
            }
        }
        frames
    }

    /// The images `[N, C, H, W]` in frames.
    pub(crate) fn scatter<T: Element>(&self, frames: &[T], images: &mut [T]) {
        let area = self.height * self.width;
        for (image, frame) in images
            .chunks_exact_mut(self.channels * area)
            .zip(frames.chunks_exact(self.len()))
        {
            for (pixel, width, start) in self.lines() {
                let size = [width, self.channels];
                transpose(&frame[start..], self.channels, &mut image[pixel..], area, size);
            }
        }
    }

    /// Pixels that lie side by side in an image and in its frame: the first one, how many, and where the
    /// first one begins in the frame.
    fn lines(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let (width, height) = if self.full[1] == self.width {
            (self.width * self.height, 1)
        } else {
            (self.width, self.height)
        };
        let (start, step) = (self.at(0, 0), self.row_step());
        (0..height).map(move |i| (i * width, width, start + i * step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_go_into_frames_and_back() {
        for (channels, height, width) in [(1, 3, 4), (3, 8, 9), (17, 5, 16), (64, 2, 8)] {
            let frame = Frame {
                channels,
                height,
                width,
                before: [1, 2],
                full: [height + 3, width + 4],
            };
            let images: Vec<f32> = (0..2 * frame.bare_len()).map(|i| i as f32 + 1.0).collect();
            let mut frames = Vec::new();
            frame.gather(&images, &mut frames);
            let mut total = 0.0;
            for image in 0..2 {
                for c in 0..channels {
                    for i in 0..height {
                        for j in 0..width {
                            let expected = images[((image * channels + c) * height + i) * width + j];
                            assert_eq!(frames[image * frame.len() + frame.at(i, j) + c], expected);
                            total += f64::from(expected);
                        }
                    }
                }
            }
            let all: f64 = frames.iter().map(|&v| f64::from(v)).sum();
            assert_eq!(all, total, "the border is zero");
            let mut back = vec![0.0; images.len()];
            frame.scatter(&frames, &mut back);
            assert_eq!(back, images);
        }
    }
}
