//! Two-dimensional convolution (cross-correlation, as in PyTorch), without bias, dilation or groups.
//!
//! y[b, k, i, j] = Σ_{c, r, s} w[k, c, r, s] · x[b, c, i·stride + r − padding, j·stride + s − padding]
//!
//! Images `[B, C, H, W]`, weights `[K, C, R, S]`, result `[B, K, H′, W′]` with
//! H′ = (H + 2·padding − R) / stride + 1, rounded down.

mod geometry;
mod gradient;
mod image_columns;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::element::{Element, check_dtypes, dispatch, values};
use crate::matmul::{Destination, Matrix, multiply};
use geometry::Geometry;
use image_columns::gather;

/// The convolution of `images` `[B, C, H, W]` with `weights` `[K, C, R, S]`.
pub fn conv2d(images: &Tensor, weights: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    check_dtypes("conv2d", &[("images", images), ("weights", weights)])?;
    let geometry = Geometry::new(images.dims(), weights.dims(), stride, padding)?;
    images
        .contiguous()?
        .apply_op2(&weights.contiguous()?, Convolution(geometry))
}

struct Convolution(Geometry);

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(x, "conv2d", forward(&self.0, x, lx, w, lw))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weights: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let to_images = match images.track_op() {
            true => Some(gradient.apply_op2_no_bwd(weights, &gradient::ToImages(self.0))?),
            false => None,
        };
        let to_weights = match weights.track_op() {
            true => Some(images.apply_op2_no_bwd(&gradient, &gradient::ToWeights(self.0))?),
            false => None,
        };
        Ok((to_images, to_weights))
    }
}

fn forward<T: Element>(
    geometry: &Geometry,
    x: &CpuStorage,
    lx: &Layout,
    w: &CpuStorage,
    lw: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (images, weights) = (values::<T>(x, lx)?, values::<T>(w, lw)?);
    let out = convolve(geometry, images, weights);
    Ok((T::to_cpu_storage_owned(out), geometry.output_shape().into()))
}

/// One product of weights and image columns per image and tile of output rows.
fn convolve<T: Element>(geometry: &Geometry, images: &[T], weights: &[T]) -> Vec<T> {
    let g = geometry;
    let mut out = vec![T::zero(); g.batch * g.output_len()];
    if out.is_empty() {
        return out;
    }
    let weights = Matrix::new(weights, g.outputs, g.patch());
    let rows = g.tile_rows();
    out.par_chunks_mut(g.output_len())
        .zip(images.par_chunks(g.input_len()))
        .for_each_init(
            || vec![T::zero(); g.patch() * rows * g.out_width],
            |columns, (out, image)| {
                for first in (0..g.out_height).step_by(rows) {
                    let rows = first..g.out_height.min(first + rows);
                    let pixels = rows.len() * g.out_width;
                    let columns = &mut columns[..g.patch() * pixels];
                    gather(g, image, rows, columns);
                    let columns = Matrix::new(columns, g.patch(), pixels);
                    let out = &mut out[first * g.out_width..];
                    multiply(weights, columns, out, g.out_pixels(), Destination::Overwrite);
                }
            },
        );
    out
}

/// Fails unless a tensor has the dimensions of images `[B, C, H, W]`.
pub(crate) fn image_dims(op: &str, dims: &[usize]) -> Result<[usize; 4]> {
    match *dims {
        [b, c, h, w] => Ok([b, c, h, w]),
        _ => bail!("{op}: images must be [B, C, H, W], not {dims:?}"),
    }
}
