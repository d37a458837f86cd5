//! Maximum over windows that do not overlap. Ties: the first maximum gets the gradient, as in PyTorch.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::check::{check_dtypes, image_dims};
use crate::element::{Element, dispatch, values};
use crate::wide::wide;

/// The largest window, in rows, of a recorded network and on a GPU: the place of the maximum is kept in eight bits.
pub const LARGEST_POOL: usize = 16;

/// Fails for windows whose places do not fit into eight bits.
pub(crate) fn check_window(size: usize) -> Result<()> {
    if (1..=LARGEST_POOL).contains(&size) {
        return Ok(());
    }
    bail!(
        "a maximum pool of {size}x{size} cannot be recorded or run on a GPU; the window must be 1 to {LARGEST_POOL} wide"
    );
}

/// The maximum of every `size` × `size` window of `images` `[B, C, H, W]`: `[B, C, H/size, W/size]`.
/// Rows and columns that fill no window are left out.
pub fn max_pool2d(images: &Tensor, size: usize) -> Result<Tensor> {
    check_dtypes("max_pool2d", &[("images", images)])?;
    let [_, _, height, width] = image_dims("max_pool2d", images.dims())?;
    if size == 0 || height < size || width < size {
        bail!("max_pool2d: images {:?} have no {size}x{size} window", images.dims());
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes("max_pool2d", images)? {
        check_window(size)?;
        return crate::cuda::operations::max_pool2d(images, size);
    }
    images.contiguous()?.apply_op1(MaxPool { size })
}

struct MaxPool {
    size: usize,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(x, "max_pool2d", forward(self.size, x, layout))
    }

    fn bwd(&self, images: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        if !images.track_op() {
            return Ok(None);
        }
        let op = MaxPoolGradient { size: self.size };
        Ok(Some(images.apply_op2_no_bwd(&gradient.contiguous()?, &op)?))
    }
}

struct MaxPoolGradient {
    size: usize,
}

impl CustomOp2 for MaxPoolGradient {
    fn name(&self) -> &'static str {
        "max_pool2d-gradient"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, g: &CpuStorage, lg: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(x, "max_pool2d", backward(self.size, x, lx, g, lg))
    }
}

fn forward<T: Element>(size: usize, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let images = values::<T>(x, layout)?;
    let (batch, channels, height, width) = layout.shape().dims4()?;
    let (rows, columns) = (height / size, width / size);
    let mut out = vec![T::zero(); batch * channels * rows * columns];
    out.par_chunks_mut(rows * columns)
        .zip(images.par_chunks(height * width))
        .for_each(|(out, plane)| {
            for (i, out) in out.chunks_mut(columns).enumerate() {
                if size == 2 {
                    maxima_of_pairs(&plane[2 * i * width..], width, out);
                    continue;
                }
                for (j, out) in out.iter_mut().enumerate() {
                    *out = plane[first_maximum(plane, width, size, i, j)];
                }
            }
        });
    Ok((T::to_cpu_storage_owned(out), (batch, channels, rows, columns).into()))
}

fn backward<T: Element>(
    size: usize,
    x: &CpuStorage,
    lx: &Layout,
    g: &CpuStorage,
    lg: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (images, gradient) = (values::<T>(x, lx)?, values::<T>(g, lg)?);
    let (_, _, height, width) = lx.shape().dims4()?;
    let (rows, columns) = (height / size, width / size);
    let mut out = vec![T::zero(); images.len()];
    out.par_chunks_mut(height * width)
        .zip(
            images
                .par_chunks(height * width)
                .zip(gradient.par_chunks(rows * columns)),
        )
        .for_each(|(out, (plane, gradient))| {
            for (i, gradient) in gradient.chunks(columns).enumerate() {
                if size == 2 {
                    let rows = 2 * i * width..(2 * i + 2) * width;
                    spread_to_pairs(gradient, &plane[rows.clone()], &mut out[rows], width);
                    continue;
                }
                for (j, gradient) in gradient.iter().enumerate() {
                    out[first_maximum(plane, width, size, i, j)] = *gradient;
                }
            }
        });
    Ok((T::to_cpu_storage_owned(out), lx.shape().clone()))
}

/// The larger one; a NaN is the largest, and the first of equals stays.
#[inline(always)]
fn larger<T: Element>(a: T, b: T) -> T {
    // Without branches. Only a NaN is unequal to itself.
    #[allow(clippy::eq_op)]
    let second = (b > a) | ((b != b) & (a == a));
    if second { b } else { a }
}

wide! {
    /// The maxima of 2×2 windows of two rows.
    fn maxima_of_pairs[T: Element](rows: &[T], width: usize, out: &mut [T]) {
        let (upper, _) = rows[..width].as_chunks::<2>();
        let (lower, _) = rows[width..2 * width].as_chunks::<2>();
        for (out, (upper, lower)) in out.iter_mut().zip(upper.iter().zip(lower)) {
            *out = larger(larger(upper[0], upper[1]), larger(lower[0], lower[1]));
        }
    }
}

wide! {
    /// Gives every 2×2 window's gradient to its first maximum.
    fn spread_to_pairs[T: Element](gradient: &[T], rows: &[T], out: &mut [T], width: usize) {
        let (upper, lower) = rows.split_at(width);
        let (out_upper, out_lower) = out.split_at_mut(width);
        let windows = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
        let outs = out_upper.as_chunks_mut::<2>().0.iter_mut().zip(out_lower.as_chunks_mut::<2>().0);
        for ((&gradient, (upper, lower)), (out_upper, out_lower)) in gradient.iter().zip(windows).zip(outs) {
            let maximum = larger(larger(upper[0], upper[1]), larger(lower[0], lower[1]));
            let mut free = true;
            let mut take = |value: T| {
                #[allow(clippy::eq_op)]
                let is_maximum = (value == maximum) | (value != value);
                let takes = free & is_maximum;
                free &= !is_maximum;
                if takes { gradient } else { T::zero() }
            };
            *out_upper = [take(upper[0]), take(upper[1])];
            *out_lower = [take(lower[0]), take(lower[1])];
        }
    }
}

/// Where the maximum of window (i, j) is in its plane. A NaN counts as the maximum.
pub(crate) fn first_maximum<T: Element>(plane: &[T], width: usize, size: usize, i: usize, j: usize) -> usize {
    let corner = i * size * width + j * size;
    let mut best = corner;
    for r in 0..size {
        for at in corner + r * width..corner + r * width + size {
            let (value, maximum) = (plane[at], plane[best]);
            // Only a NaN is unequal to itself.
            #[allow(clippy::eq_op)]
            if value > maximum || (value != value && maximum == maximum) {
                best = at;
            }
        }
    }
    best
}
