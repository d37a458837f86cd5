//! A correlation over padded images: what a convolution and the gradient to its images have in common.
//!
//! An output pixel (i, j) of every output channel is a sum over offsets into the padded image, taken
//! from i · row_step + j · step.

use std::ops::Range;

use crate::element::Element;
use crate::product::Panels;

/// Numbers past the end that a copy of a whole panel row may touch.
pub(crate) const SLACK: usize = 64;

/// Planes with a border of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Padded {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Zeros above, and to the left.
    pub(crate) before: [usize; 2],
    /// Height and width with the border.
    pub(crate) full: [usize; 2],
}

impl Padded {
    /// Numbers per image, with the border.
    pub(crate) fn len(&self) -> usize {
        self.channels * self.full[0] * self.full[1]
    }

    /// Copies images without border one after the other.
    pub(crate) fn copy<T: Element>(&self, images: &[T], padded: &mut Vec<T>) {
        let count = images.len() / (self.channels * self.height * self.width).max(1);
        padded.clear();
        padded.resize(count * self.len() + SLACK, T::zero());
        let area = self.full[0] * self.full[1];
        let planes = images.chunks_exact(self.height * self.width);
        for (plane, out) in planes.zip(padded.chunks_exact_mut(area)) {
            let out = out[self.before[0] * self.full[1]..].chunks_exact_mut(self.full[1]);
            for (row, out) in plane.chunks_exact(self.width).zip(out) {
                out[self.before[1]..self.before[1] + self.width].copy_from_slice(row);
            }
        }
    }
}

/// Which numbers of a padded image an output pixel is made of.
#[derive(Debug, Clone)]
pub(crate) struct Stencil {
    /// For every step of the depth, counted from the pixel's corner.
    pub(crate) offsets: Vec<usize>,
    /// From an output row to the next.
    pub(crate) row_step: usize,
    /// From an output pixel to the next.
    pub(crate) step: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Stencil {
    pub(crate) fn pixels(&self) -> usize {
        self.height * self.width
    }
}

/// The right operand of the product: a column for every output pixel of some padded images.
pub(crate) struct Patches<'a, T> {
    pub(crate) stencil: &'a Stencil,
    pub(crate) padded: &'a [T],
    /// Numbers per padded image.
    pub(crate) len: usize,
    pub(crate) images: usize,
}

/// Output pixels that follow one another in the image as well.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// The first one's place in the panel.
    at: usize,
    count: usize,
    /// The first one's corner.
    corner: usize,
}

impl<T: Element> Panels<T> for Patches<'_, T> {
    fn columns(&self) -> usize {
        self.images * self.stencil.pixels()
    }

    fn fill(&self, depth: Range<usize>, first: usize, width: usize, panel: &mut [T]) {
        let mut runs = [Run::default(); SLACK];
        let runs = self.runs(first, width, &mut runs);
        let offsets = &self.stencil.offsets[depth];
        match (self.stencil.step, width) {
            (1, 8) => self.copy::<8>(runs, offsets, panel),
            (1, 16) => self.copy::<16>(runs, offsets, panel),
            (1, 32) => self.copy::<32>(runs, offsets, panel),
            (step, _) => {
                for (offset, row) in offsets.iter().zip(panel.chunks_exact_mut(width)) {
                    for run in runs {
                        let pixels = self.padded[offset + run.corner..].iter().step_by(step);
                        for (out, pixel) in row[run.at..run.at + run.count].iter_mut().zip(pixels) {
                            *out = *pixel;
                        }
                    }
                }
            }
        }
    }
}

impl<T: Element> Patches<'_, T> {
    fn runs<'r>(&self, first: usize, width: usize, runs: &'r mut [Run; SLACK]) -> &'r [Run] {
        let mut filled = 0;
        let end = self.columns().min(first + width);
        self.for_runs(first..end, |at, count, corner| {
            runs[filled] = Run { at, count, corner };
            filled += 1;
        });
        &runs[..filled]
    }

    /// Calls with every run of pixels in a range of columns: its place in the range, its length, its
    /// first corner.
    pub(crate) fn for_runs(&self, columns: Range<usize>, mut run: impl FnMut(usize, usize, usize)) {
        let Stencil {
            height,
            width,
            row_step,
            step,
            ..
        } = *self.stencil;
        let mut column = columns.start;
        while column < columns.end {
            let (image, pixel) = (column / (height * width), column % (height * width));
            let (i, j) = (pixel / width, pixel % width);
            let count = (width - j).min(columns.end - column);
            run(
                column - columns.start,
                count,
                image * self.len + i * row_step + j * step,
            );
            column += count;
        }
    }

    /// [`Self::copy_any`] with the widest registers there are.
    fn copy<const W: usize>(&self, runs: &[Run], offsets: &[usize], panel: &mut [T]) {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx")]
            fn wide<T: Element, const W: usize>(it: &Patches<'_, T>, runs: &[Run], offsets: &[usize], panel: &mut [T]) {
                it.copy_any::<W>(runs, offsets, panel);
            }
            if is_x86_feature_detected!("avx") {
                #[allow(unsafe_code, reason = "the function needs CPU features")]
                // SAFETY: the feature has just been found on this machine.
                unsafe {
                    return wide::<T, W>(self, runs, offsets, panel);
                }
            }
        }
        self.copy_any::<W>(runs, offsets, panel);
    }

    /// Copies `W` numbers per run, however long it is: the next run or row overwrites what is too much.
    #[inline(always)]
    fn copy_any<const W: usize>(&self, runs: &[Run], offsets: &[usize], panel: &mut [T]) {
        if let [run] = runs {
            for (row, offset) in panel.chunks_exact_mut(W).zip(offsets) {
                row.copy_from_slice(&self.padded[offset + run.corner..][..W]);
            }
            return;
        }
        for (k, offset) in offsets.iter().enumerate() {
            for run in runs {
                let from = &self.padded[offset + run.corner..][..W];
                panel[k * W + run.at..][..W].copy_from_slice(from);
            }
        }
    }
}
