//! Correlations of a batch, a group of images per task.

use rayon::prelude::*;

use super::stencil::{Padded, Patches, Stencil};
use crate::element::Element;
use crate::product::{Packed, Sink, multiply, store};

/// A stencil with its packed weights, and where its pixels lie in the output plane.
pub(super) struct Part<T> {
    pub(super) stencil: Stencil,
    pub(super) weights: Packed<T>,
    pub(super) place: Place,
}

/// Pixel (i, j) of a part is pixel (i·stride + top, j·stride + left) of a plane of some width.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) top: usize,
    pub(super) left: usize,
    pub(super) stride: usize,
    pub(super) plane_width: usize,
}

/// All parts over all images; the result is `[B, rows, plane]`.
pub(super) fn correlate<T: Element>(padded: &Padded, images: &[T], parts: &[Part<T>], plane: usize) -> Vec<T> {
    let image_len = padded.channels * padded.height * padded.width;
    let batch = images.len() / image_len;
    let rows = parts[0].weights.rows();
    let mut out = vec![T::zero(); batch * rows * plane];
    if out.is_empty() {
        return out;
    }
    let group = group(batch, parts[0].stencil.pixels());
    out.par_chunks_mut(group * rows * plane)
        .zip(images.par_chunks(group * image_len))
        .for_each_init(
            || (Vec::new(), Vec::new()),
            |(border, scratch), (out, images)| {
                padded.copy(images, border);
                for part in parts {
                    let patches = Patches {
                        stencil: &part.stencil,
                        padded: border,
                        len: padded.len(),
                        images: images.len() / image_len,
                    };
                    let mut planes = Planes {
                        out,
                        rows,
                        plane,
                        pixels: part.stencil.pixels(),
                        width: part.stencil.width,
                        place: part.place,
                    };
                    multiply(&part.weights, &patches, scratch, &mut planes);
                }
            },
        );
    out
}

/// Images per task: enough pixels to be worth a pass over the weights, but work for every thread. The
/// result does not depend on it.
fn group(batch: usize, pixels: usize) -> usize {
    const PIXELS: usize = 512;
    let share = batch.div_ceil(rayon::current_num_threads());
    PIXELS.div_ceil(pixels.max(1)).clamp(1, share)
}

/// The output planes of a group of images.
struct Planes<'a, T> {
    out: &'a mut [T],
    rows: usize,
    plane: usize,
    pixels: usize,
    width: usize,
    place: Place,
}

impl<T: Element> Sink<T> for Planes<'_, T> {
    fn put(&mut self, row: usize, mut column: usize, is_first: bool, _: bool, mut values: &[T]) {
        while !values.is_empty() {
            let (image, pixel) = (column / self.pixels, column % self.pixels);
            let start = (image * self.rows + row) * self.plane;
            let place = self.place;
            let count = if place.stride == 1 {
                let count = values.len().min(self.pixels - pixel);
                store(&mut self.out[start + pixel..][..count], &values[..count], is_first);
                count
            } else {
                let (i, j) = (pixel / self.width, pixel % self.width);
                let count = values.len().min(self.width - j);
                let start = start + (i * place.stride + place.top) * place.plane_width;
                let out = self.out[start + j * place.stride + place.left..]
                    .iter_mut()
                    .step_by(place.stride);
                for (out, value) in out.zip(&values[..count]) {
                    if is_first {
                        *out = *value;
                    } else {
                        *out += *value;
                    }
                }
                count
            };
            values = &values[count..];
            column += count;
        }
    }
}
