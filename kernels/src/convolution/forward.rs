//! Correlations of a batch, a group of images per task.

use rayon::prelude::*;

use super::stencil::{Padded, Patches, Stencil};
use crate::element::Element;
use crate::product::{Packed, Sink, Tile, multiply, store};

/// A stencil with its packed weights, and where its pixels lie in the output plane.
pub(crate) struct Part<T> {
    pub(crate) stencil: Stencil,
    pub(crate) weights: Packed<T>,
    pub(crate) place: Place,
}

/// Pixel (i, j) of a part is pixel (i·stride + top, j·stride + left) of a plane of some width.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) stride: usize,
    pub(crate) plane_width: usize,
}

/// All parts over all images; the result is `[B, rows, plane]`.
pub(crate) fn correlate<T: Element>(padded: &Padded, images: &[T], parts: &[Part<T>], plane: usize) -> Vec<T> {
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
                    let mut planes = Planes::new(out, rows, plane, part);
                    multiply(&part.weights, &patches, scratch, &mut planes);
                }
            },
        );
    out
}

/// Images per task: enough pixels to be worth a pass over the weights, but work for every thread. The
/// result does not depend on it.
pub(crate) fn group(batch: usize, pixels: usize) -> usize {
    const PIXELS: usize = 512;
    let share = batch.div_ceil(rayon::current_num_threads());
    PIXELS.div_ceil(pixels.max(1)).clamp(1, share)
}

/// The output planes of a group of images.
pub(crate) struct Planes<'a, T> {
    out: &'a mut [T],
    rows: usize,
    plane: usize,
    pixels: usize,
    width: usize,
    place: Place,
    /// Adds to what is there instead of overwriting it.
    pub(crate) accumulate: bool,
}

impl<'a, T> Planes<'a, T> {
    /// The pixels of a part in planes of `plane` pixels, `rows` of them per image.
    pub(crate) fn new(out: &'a mut [T], rows: usize, plane: usize, part: &Part<T>) -> Self {
        Self {
            out,
            rows,
            plane,
            pixels: part.stencil.pixels(),
            width: part.stencil.width,
            place: part.place,
            accumulate: false,
        }
    }
}

impl<T: Element> Sink<T> for Planes<'_, T> {
    fn put(&mut self, tile: &Tile<'_, T>) {
        let is_first = tile.is_first && !self.accumulate;
        let place = self.place;
        let mut done = 0;
        while done < tile.columns {
            let column = tile.column + done;
            let (image, pixel) = (column / self.pixels, column % self.pixels);
            let start = (image * self.rows + tile.row) * self.plane;
            if place.stride == 1 {
                let count = (tile.columns - done).min(self.pixels - pixel);
                for row in 0..tile.rows {
                    let out = &mut self.out[start + row * self.plane + pixel..][..count];
                    store(out, tile.row(row, done, count), is_first);
                }
                done += count;
                continue;
            }
            let (i, j) = (pixel / self.width, pixel % self.width);
            let count = (tile.columns - done).min(self.width - j);
            let corner = (i * place.stride + place.top) * place.plane_width + j * place.stride + place.left;
            for row in 0..tile.rows {
                let out = self.out[start + row * self.plane + corner..].iter_mut();
                for (out, value) in out.step_by(place.stride).zip(tile.row(row, done, count)) {
                    *out = if is_first { *value } else { *out + *value };
                }
            }
            done += count;
        }
    }
}
