//! Two-dimensional convolution (cross-correlation, as in PyTorch), without dilation or groups.
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
pub(crate) use gradient::{Pixels, weight_gradient};
pub(crate) use part::{Part, Plain, Sink, over_pixels};
pub(crate) use winograd::{Scratch, Winograd};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use crate::activation::Activation;
use crate::bias::bias_gradient;
use crate::check::check_dtypes;
use crate::element::{Element, dispatch, values};
use crate::relu::activation_gradient;
use crate::wide::wide;
use part::correlate;

/// The convolution of `images` `[B, C, H, W]` with `weights` `[K, C, R, S]`.
pub fn conv2d(images: &Tensor, weights: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    check_dtypes("conv2d", &[("images", images), ("weights", weights)])?;
    let geometry = Geometry::new(images.dims(), weights.dims(), stride, padding)?;
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes("conv2d", images)? {
        return crate::cuda::operations::conv2d(images, weights, geometry);
    }
    images
        .contiguous()?
        .apply_op2(&weights.contiguous()?, Convolution(geometry))
}

/// As [`conv2d`], plus `bias` `[K]`, then the activation, all in one pass.
pub fn conv2d_with_bias(
    images: &Tensor,
    weights: &Tensor,
    bias: &Tensor,
    stride: usize,
    padding: usize,
    activation: Activation,
) -> Result<Tensor> {
    check_dtypes("conv2d", &[("images", images), ("weights", weights), ("biases", bias)])?;
    let geometry = Geometry::new(images.dims(), weights.dims(), stride, padding)?;
    if bias.dims() != [geometry.outputs] {
        bail!(
            "conv2d: bias {:?} does not fit weights {:?}",
            bias.dims(),
            weights.dims()
        );
    }
    let op = ConvolutionWithBias { geometry, activation };
    images
        .contiguous()?
        .apply_op3(&weights.contiguous()?, &bias.contiguous()?, op)
}

struct Convolution(Geometry);

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        if let Some(out) = by_winograd(&self.0, x, lx, w, lw, |_| {})? {
            return Ok((CpuStorage::F32(out), self.0.output_shape().into()));
        }
        dispatch!(x, "conv2d", forward(&self.0, x, lx, w, lw))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weights: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        gradients(&self.0, images, weights, &gradient.contiguous()?)
    }
}

struct ConvolutionWithBias {
    geometry: Geometry,
    activation: Activation,
}

impl CustomOp3 for ConvolutionWithBias {
    fn name(&self) -> &'static str {
        "conv2d-with-bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if let CpuStorage::F32(_) = b {
            let bias = values(b, lb)?;
            let finish = |pixels: &mut [f32]| finish(pixels, bias, self.activation);
            if let Some(out) = by_winograd(&self.geometry, x, lx, w, lw, finish)? {
                return Ok((CpuStorage::F32(out), self.geometry.output_shape().into()));
            }
        }
        dispatch!(x, "conv2d", forward_with_bias(self, x, lx, w, lw, b, lb))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weights: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = activation_gradient(self.activation, result, gradient)?;
        let to_bias = bias_gradient(bias, &gradient)?;
        let (to_images, to_weights) = gradients(&self.geometry, images, weights, &gradient)?;
        Ok((to_images, to_weights, to_bias))
    }
}

fn gradients(
    geometry: &Geometry,
    images: &Tensor,
    weights: &Tensor,
    gradient: &Tensor,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let to_images = if images.track_op() {
        Some(gradient.apply_op2_no_bwd(weights, &gradient::ToImages(*geometry))?)
    } else {
        None
    };
    let to_weights = if weights.track_op() {
        Some(images.apply_op2_no_bwd(gradient, &gradient::ToWeights(*geometry))?)
    } else {
        None
    };
    Ok((to_images, to_weights))
}

fn forward<T: Element>(
    geometry: &Geometry,
    x: &CpuStorage,
    lx: &Layout,
    w: &CpuStorage,
    lw: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (images, weights) = (values::<T>(x, lx)?, values::<T>(w, lw)?);
    let out = directly(geometry, images, weights, |_| {});
    Ok((T::to_cpu_storage_owned(out), geometry.output_shape().into()))
}

fn forward_with_bias<T: Element>(
    op: &ConvolutionWithBias,
    x: &CpuStorage,
    lx: &Layout,
    w: &CpuStorage,
    lw: &Layout,
    b: &CpuStorage,
    lb: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (images, weights, bias) = (values::<T>(x, lx)?, values::<T>(w, lw)?, values::<T>(b, lb)?);
    let geometry = &op.geometry;
    let out = directly(geometry, images, weights, |pixels| finish(pixels, bias, op.activation));
    Ok((T::to_cpu_storage_owned(out), geometry.output_shape().into()))
}

/// The convolution as products; `finish` gets whole pixels, channels side by side.
fn directly<T: Element>(geometry: &Geometry, images: &[T], weights: &[T], finish: impl Fn(&mut [T]) + Sync) -> Vec<T> {
    let frame = geometry.input_frame();
    let part = geometry.forward(weights, &frame);
    let out = [geometry.outputs, geometry.out_height, geometry.out_width];
    correlate(&frame, images, &[part], out, finish)
}

/// The convolution by way of Winograd, where it can be computed so and gains by it.
fn by_winograd(
    geometry: &Geometry,
    x: &CpuStorage,
    lx: &Layout,
    w: &CpuStorage,
    lw: &Layout,
    finish: impl Fn(&mut [f32]) + Sync,
) -> Result<Option<Vec<f32>>> {
    let (CpuStorage::F32(_), CpuStorage::F32(_)) = (x, w) else {
        return Ok(None);
    };
    let frame = geometry.input_frame();
    let winograd = Winograd::forward(geometry, values(w, lw)?, &frame);
    let images = values(x, lx)?;
    Ok(winograd.map(|winograd| winograd.batch(&frame, images, finish)))
}

wide! {
    /// Adds the bias to pixels and applies the activation.
    fn finish[T: Element](pixels: &mut [T], bias: &[T], activation: Activation) {
        for pixel in pixels.chunks_exact_mut(bias.len()) {
            let pairs = pixel.iter_mut().zip(bias);
            match activation {
                Activation::None => pairs.for_each(|(value, &bias)| *value += bias),
                Activation::Relu => pairs.for_each(|(value, &bias)| {
                    let sum = *value + bias;
                    *value = if sum <= T::zero() { T::zero() } else { sum };
                }),
            }
        }
    }
}
