//! Image columns ("im2col"): the matrix `[C·R·S, pixels]` whose column for an output pixel holds the
//! input numbers that the pixel is made of.

use std::ops::Range;

use super::Geometry;
use crate::element::Element;

/// The columns of the output pixels in `rows`, from one image `[C, H, W]`.
pub(super) fn gather<T: Element>(g: &Geometry, image: &[T], rows: Range<usize>, columns: &mut [T]) {
    let pixels = rows.len() * g.out_width;
    let mut lines = columns.chunks_mut(pixels);
    for channel in image.chunks(g.height * g.width) {
        for r in 0..g.kernel_height {
            for s in 0..g.kernel_width {
                let line = lines.next().expect("one line per kernel pixel");
                let inside = inside(g, s);
                for (i, out) in rows.clone().zip(line.chunks_mut(g.out_width)) {
                    let Some(y) = (i * g.stride + r)
                        .checked_sub(g.padding_height)
                        .filter(|&y| y < g.height)
                    else {
                        out.fill(T::zero());
                        continue;
                    };
                    out[..inside.start].fill(T::zero());
                    out[inside.end..].fill(T::zero());
                    if inside.is_empty() {
                        continue;
                    }
                    let from = y * g.width + inside.start * g.stride + s - g.padding_width;
                    let out = &mut out[inside.clone()];
                    if g.stride == 1 {
                        out.copy_from_slice(&channel[from..from + out.len()]);
                    } else {
                        for (out, value) in out.iter_mut().zip(channel[from..].iter().step_by(g.stride)) {
                            *out = *value;
                        }
                    }
                }
            }
        }
    }
}

/// Adds the columns of the output pixels in `rows` back onto one image `[C, H, W]`.
pub(super) fn scatter_add<T: Element>(g: &Geometry, columns: &[T], rows: Range<usize>, image: &mut [T]) {
    let pixels = rows.len() * g.out_width;
    let mut lines = columns.chunks(pixels);
    for channel in image.chunks_mut(g.height * g.width) {
        for r in 0..g.kernel_height {
            for s in 0..g.kernel_width {
                let line = lines.next().expect("one line per kernel pixel");
                let inside = inside(g, s);
                if inside.is_empty() {
                    continue;
                }
                for (i, line) in rows.clone().zip(line.chunks(g.out_width)) {
                    let Some(y) = (i * g.stride + r)
                        .checked_sub(g.padding_height)
                        .filter(|&y| y < g.height)
                    else {
                        continue;
                    };
                    let from = y * g.width + inside.start * g.stride + s - g.padding_width;
                    let pixels = channel[from..].iter_mut().step_by(g.stride);
                    for (pixel, value) in pixels.zip(&line[inside.clone()]) {
                        *pixel += *value;
                    }
                }
            }
        }
    }
}

/// The output columns j for which kernel column `s` meets the image: 0 ≤ j·stride + s − padding < W.
fn inside(g: &Geometry, s: usize) -> Range<usize> {
    let start = g.padding_width.saturating_sub(s).div_ceil(g.stride);
    let end = (g.width + g.padding_width).saturating_sub(s).div_ceil(g.stride);
    let end = end.min(g.out_width);
    start.min(end)..end
}
