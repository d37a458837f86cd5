//! Batch normalisation over `[B, C, H, W]`, per channel: Ioffe and Szegedy 2015, arXiv:1502.03167.
//!
//! y = (x − mean) / √(variance + ε) · weight + bias
//!
//! The caller says whose statistics: the running ones or the batch's own (biased variance). The
//! running variance is the unbiased one, as in PyTorch.

mod state;

use std::sync::atomic::Ordering;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::activation::Activation;
use crate::check::{check_dtypes, image_dims};
use crate::element::{Element, dispatch, values};
use crate::relu::activation_gradient;
use crate::sum::{pair_sum, sum};
use state::doubles;
pub(crate) use state::update;
pub use state::{BatchNorm, Statistics};

/// Normalises `images` `[B, C, H, W]`, then applies the activation.
pub fn batch_norm(images: &Tensor, norm: &BatchNorm, statistics: Statistics, activation: Activation) -> Result<Tensor> {
    let named = [
        ("images", images),
        ("weights", &norm.weight),
        ("biases", &norm.bias),
        ("running means", norm.running_mean.as_tensor()),
        ("running variances", norm.running_var.as_tensor()),
    ];
    check_dtypes("batch_norm", &named)?;
    let [batch, channels, height, width] = image_dims("batch_norm", images.dims())?;
    for (name, tensor) in &named[1..] {
        if tensor.dims() != [channels] {
            bail!(
                "batch_norm: {name} {:?} do not fit images {:?}",
                tensor.dims(),
                images.dims()
            );
        }
    }
    let images = images.contiguous()?;
    let count = batch * height * width;
    if statistics != Statistics::Running && count < 2 {
        bail!(
            "batch_norm: images {:?} have one value per channel, no variance",
            images.dims()
        );
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes("batch_norm", &images)? {
        return crate::cuda::operations::batch_norm(&images, norm, statistics, activation);
    }
    let (mean, variance) = match statistics {
        Statistics::Running => (
            doubles(norm.running_mean.as_tensor())?,
            doubles(norm.running_var.as_tensor())?,
        ),
        Statistics::Batch | Statistics::BatchAndUpdate => of_batch(&images)?,
    };
    if statistics == Statistics::BatchAndUpdate {
        norm.updates.fetch_add(1, Ordering::Relaxed);
        let unbiased = count as f64 / (count - 1) as f64;
        update(&norm.running_mean, norm.momentum, &mean, 1.0)?;
        update(&norm.running_var, norm.momentum, &variance, unbiased)?;
    }
    let op = Normalise {
        scale: variance.iter().map(|v| 1.0 / (v + norm.epsilon).sqrt()).collect(),
        mean,
        statistics,
        activation,
    };
    images.apply_op3(&norm.weight.contiguous()?, &norm.bias.contiguous()?, op)
}

/// Mean and biased variance of every channel.
fn of_batch(images: &Tensor) -> Result<(Vec<f64>, Vec<f64>)> {
    let (storage, layout) = images.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else {
        bail!("batch_norm: batch statistics are only there on the CPU");
    };
    dispatch!(storage, "batch_norm", channel_moments(storage, layout))
}

fn channel_moments<T: Element>(x: &CpuStorage, layout: &Layout) -> Result<(Vec<f64>, Vec<f64>)> {
    let images = values::<T>(x, layout)?;
    let (batch, channels, height, width) = layout.shape().dims4()?;
    let (area, count) = (height * width, (batch * height * width) as f64);
    let moments = (0..channels).into_par_iter().map(|channel| {
        let planes = || {
            let starts = (0..batch).map(move |image| (image * channels + channel) * area);
            starts.map(|start| &images[start..start + area])
        };
        let mean = planes().map(|plane| sum(plane, |x| x)).sum::<f64>() / count;
        let center = T::from_f64(mean);
        let square = planes().map(|plane| sum(plane, |x| (x - center) * (x - center)));
        // `center` is the mean rounded to T; the correction makes the variance exact again.
        let rounding = mean - center.to_f64();
        (mean, square.sum::<f64>() / count - rounding * rounding)
    });
    Ok(moments.unzip())
}

struct Normalise {
    mean: Vec<f64>,
    /// 1/√(variance + ε).
    scale: Vec<f64>,
    statistics: Statistics,
    activation: Activation,
}

impl CustomOp3 for Normalise {
    fn name(&self) -> &'static str {
        "batch_norm"
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
        dispatch!(x, "batch_norm", forward(self, x, lx, w, lw, b, lb))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = activation_gradient(self.activation, result, gradient)?;
        let parameters = weight.track_op() || bias.track_op();
        let (storage, layout) = images.storage_and_layout();
        let (gradient_storage, gradient_layout) = gradient.storage_and_layout();
        let (candle_core::Storage::Cpu(x), candle_core::Storage::Cpu(g)) = (&*storage, &*gradient_storage) else {
            bail!("batch_norm: gradients are only there on the CPU");
        };
        let mut sums = None;
        if parameters || self.statistics != Statistics::Running {
            sums = Some(dispatch!(
                x,
                "batch_norm",
                gradient_sums(self, x, layout, g, gradient_layout)
            )?);
        }
        let mut to_images = None;
        if images.track_op() {
            let weight = doubles(weight)?;
            let op = dispatch!(
                x,
                "batch_norm",
                to_input(self, &weight, sums.as_deref(), x, layout, g, gradient_layout)
            )?;
            to_images = Some(op);
        }
        let parameter = |of: fn(&(f64, f64)) -> f64, like: &Tensor| -> Result<Option<Tensor>> {
            match (&sums, like.track_op()) {
                (Some(sums), true) => {
                    let values: Vec<f64> = sums.iter().map(of).collect();
                    Ok(Some(Tensor::new(values, like.device())?.to_dtype(like.dtype())?))
                }
                _ => Ok(None),
            }
        };
        let to_bias = parameter(|sums| sums.0, bias)?;
        let to_weight = parameter(|sums| sums.1, weight)?;
        Ok((to_images, to_weight, to_bias))
    }
}

fn forward<T: Element>(
    op: &Normalise,
    x: &CpuStorage,
    lx: &Layout,
    w: &CpuStorage,
    lw: &Layout,
    b: &CpuStorage,
    lb: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let images = values::<T>(x, lx)?;
    let (weight, bias) = (values::<T>(w, lw)?, values::<T>(b, lb)?);
    let (_, channels, height, width) = lx.shape().dims4()?;
    let area = height * width;
    let mut out = vec![T::zero(); images.len()];
    if area > 0 {
        out.par_chunks_mut(area)
            .zip(images.par_chunks(area))
            .enumerate()
            .for_each(|(plane, (out, x))| {
                let channel = plane % channels;
                let mean = T::from_f64(op.mean[channel]);
                let scale = T::from_f64(op.scale[channel] * weight[channel].to_f64());
                let shift = bias[channel];
                match op.activation {
                    Activation::None => out
                        .iter_mut()
                        .zip(x)
                        .for_each(|(out, &x)| *out = (x - mean) * scale + shift),
                    Activation::Relu => out.iter_mut().zip(x).for_each(|(out, &x)| {
                        let y = (x - mean) * scale + shift;
                        *out = if y <= T::zero() { T::zero() } else { y };
                    }),
                }
            });
    }
    Ok((T::to_cpu_storage_owned(out), lx.shape().clone()))
}

/// Per channel: Σ g and Σ g · x̂.
fn gradient_sums<T: Element>(
    op: &Normalise,
    x: &CpuStorage,
    lx: &Layout,
    g: &CpuStorage,
    lg: &Layout,
) -> Result<Vec<(f64, f64)>> {
    let (images, gradient) = (values::<T>(x, lx)?, values::<T>(g, lg)?);
    let (batch, channels, height, width) = lx.shape().dims4()?;
    let area = height * width;
    let sums = (0..channels).into_par_iter().map(|channel| {
        let mean = T::from_f64(op.mean[channel]);
        let (mut plain, mut weighted) = (0.0, 0.0);
        for image in 0..batch {
            let start = (image * channels + channel) * area;
            let (x, g) = (&images[start..start + area], &gradient[start..start + area]);
            plain += sum(g, |g| g);
            weighted += pair_sum(x, g, |x, g| (x - mean) * g);
        }
        (plain, weighted * op.scale[channel])
    });
    Ok(sums.collect())
}

/// Running statistics: g · scale · weight. The batch's own: mean and variance depend on x as well, so
/// (g − mean g − x̂ · mean(g · x̂)) · scale · weight.
fn to_input<T: Element>(
    op: &Normalise,
    weight: &[f64],
    sums: Option<&[(f64, f64)]>,
    x: &CpuStorage,
    lx: &Layout,
    g: &CpuStorage,
    lg: &Layout,
) -> Result<Tensor> {
    let (images, gradient) = (values::<T>(x, lx)?, values::<T>(g, lg)?);
    let (batch, channels, height, width) = lx.shape().dims4()?;
    let area = height * width;
    let count = (batch * area) as f64;
    let mut out = vec![T::zero(); images.len()];
    if area > 0 {
        let planes = out
            .par_chunks_mut(area)
            .zip(images.par_chunks(area).zip(gradient.par_chunks(area)));
        planes.enumerate().for_each(|(plane, (out, (x, g)))| {
            let channel = plane % channels;
            let factor = op.scale[channel] * weight[channel];
            let scale = T::from_f64(factor);
            match (op.statistics, sums) {
                (Statistics::Batch | Statistics::BatchAndUpdate, Some(sums)) => {
                    let (plain, weighted) = sums[channel];
                    let mean = T::from_f64(op.mean[channel]);
                    let slope = T::from_f64(factor * op.scale[channel] * weighted / count);
                    let offset = T::from_f64(factor * plain / count);
                    for (out, (&x, &g)) in out.iter_mut().zip(x.iter().zip(g)) {
                        *out = g * scale - offset - (x - mean) * slope;
                    }
                }
                _ => {
                    for (out, &g) in out.iter_mut().zip(g) {
                        *out = g * scale;
                    }
                }
            }
        });
    }
    Tensor::from_vec(out, lx.shape().clone(), &candle_core::Device::Cpu)
}
