//! Images with their channels side by side and a border of zeros, as convolutions read them.

use std::ops::Range;

use crate::element::Element;
use crate::product::SLACK;
use crate::wide::wide;

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

    /// Where the numbers of image row i lie.
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

    /// Writes images `[N, C, H, W]` into frames whose border is there already.
    pub(crate) fn fill<T: Element>(&self, images: &[T], frames: &mut [T]) {
        self.fill_channels(images, self.channels, 0..self.channels, frames);
    }

    fn fill_channels<T: Element>(&self, images: &[T], all: usize, channels: Range<usize>, frames: &mut [T]) {
        debug_assert_eq!(channels.len(), self.channels);
        let area = self.height * self.width;
        for (image, frame) in images.chunks_exact(all * area).zip(frames.chunks_exact_mut(self.len())) {
            let planes = &image[channels.start * area..channels.end * area];
            for i in 0..self.height {
                let out = &mut frame[self.row(i)];
                wide(|| turn(&planes[i * self.width..], area, out, self.channels));
            }
        }
    }

    /// The images `[N, C, H, W]` in frames.
    pub(crate) fn scatter<T: Element>(&self, frames: &[T], images: &mut [T]) {
        let area = self.height * self.width;
        for (image, frame) in images
            .chunks_exact_mut(self.channels * area)
            .zip(frames.chunks_exact(self.len()))
        {
            for i in 0..self.height {
                let row = &frame[self.row(i)];
                wide(|| turn_back(row, self.channels, &mut image[i * self.width..], area));
            }
        }
    }
}

/// The side of the square blocks in which rows become columns.
const BLOCK: usize = 8;

/// out[j · channels + c] = planes[c · area + j].
#[inline(always)]
fn turn<T: Element>(planes: &[T], area: usize, out: &mut [T], channels: usize) {
    let width = out.len() / channels;
    if channels == 1 {
        out.copy_from_slice(&planes[..width]);
        return;
    }
    transpose(planes, area, out, channels, [channels, width]);
}

/// planes[c · area + j] = row[j · channels + c].
#[inline(always)]
fn turn_back<T: Element>(row: &[T], channels: usize, planes: &mut [T], area: usize) {
    let width = row.len() / channels;
    if channels == 1 {
        planes[..width].copy_from_slice(row);
        return;
    }
    transpose(row, channels, planes, area, [width, channels]);
}

/// to[j · to_step + i] = from[i · from_step + j] for i below `rows` and j below `columns`.
#[inline(always)]
fn transpose<T: Element>(from: &[T], from_step: usize, to: &mut [T], to_step: usize, [rows, columns]: [usize; 2]) {
    for first_row in (0..rows).step_by(BLOCK) {
        for first_column in (0..columns).step_by(BLOCK) {
            if first_row + BLOCK <= rows && first_column + BLOCK <= columns {
                let block: [[T; BLOCK]; BLOCK] = std::array::from_fn(|i| {
                    let start = (first_row + i) * from_step + first_column;
                    *from[start..].first_chunk().expect("a whole block")
                });
                for j in 0..BLOCK {
                    let start = (first_column + j) * to_step + first_row;
                    let out: &mut [T; BLOCK] = to[start..].first_chunk_mut().expect("a whole block");
                    *out = std::array::from_fn(|i| block[i][j]);
                }
                continue;
            }
            for i in first_row..rows.min(first_row + BLOCK) {
                for j in first_column..columns.min(first_column + BLOCK) {
                    to[j * to_step + i] = from[i * from_step + j];
                }
            }
        }
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
