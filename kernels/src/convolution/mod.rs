//! Two-dimensional convolution (cross-correlation, as in PyTorch), without bias, dilation or groups.
//!
//! y[b, k, i, j] = Σ_{c, r, s} w[k, c, r, s] · x[b, c, i·stride + r − padding, j·stride + s − padding]
//!
//! Images `[B, C, H, W]`, weights `[K, C, R, S]`, result `[B, K, H′, W′]` with
//! H′ = (H + 2·padding − R) / stride + 1, rounded down.

mod geometry;
mod gradient;
mod part;
mod winograd;

pub(crate) use geometry::Geometry;
pub(crate) use part::Part;
pub(crate) use winograd::{Scratch, Winograd};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use crate::element::{Element, check_dtypes, dispatch, values};
use part::correlate;

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
        let geometry = &self.0;
        let frame = geometry.input_frame();
        if let (CpuStorage::F32(_), CpuStorage::F32(_)) = (x, w)
            && let Some(winograd) = Winograd::forward(geometry, values(w, lw)?, &frame)
        {
            let out = winograd.batch(&frame, values(x, lx)?);
            return Ok((CpuStorage::F32(out), geometry.output_shape().into()));
        }
        dispatch!(x, "conv2d", forward(geometry, x, lx, w, lw))
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
    let frame = geometry.input_frame();
    let part = geometry.forward(weights, &frame);
    let out = [geometry.outputs, geometry.out_height, geometry.out_width];
    let out = correlate(&frame, images, &[part], out);
    Ok((T::to_cpu_storage_owned(out), geometry.output_shape().into()))
}

/// Fails unless a tensor has the dimensions of images `[B, C, H, W]`.
pub(crate) fn image_dims(op: &str, dims: &[usize]) -> Result<[usize; 4]> {
    match *dims {
        [b, c, h, w] => Ok([b, c, h, w]),
        _ => bail!("{op}: images must be [B, C, H, W], not {dims:?}"),
    }
}
