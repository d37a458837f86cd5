//! Adds a bias per channel, with or without ReLU after it, in one pass.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::activation::Activation;
use crate::check::check_dtypes;
use crate::element::{Element, dispatch, on_cpu, values};
use crate::relu::activation_gradient;
use crate::sum::sum;

/// `x` `[B, C, …]` plus `bias` `[C]`, then the activation.
pub fn add_bias(x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    check_dtypes("add_bias", &[("operands", x), ("biases", bias)])?;
    if x.rank() < 2 || bias.dims() != &x.dims()[1..2] {
        bail!("add_bias: bias {:?} does not fit {:?}", bias.dims(), x.dims());
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes("add_bias", x)? {
        return crate::cuda::operations::add_bias(x, bias, activation);
    }
    x.contiguous()?.apply_op2(&bias.contiguous()?, AddBias(activation))
}

struct AddBias(Activation);

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add_bias"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(x, "add_bias", forward(self.0, x, lx, b, lb))
    }

    fn bwd(
        &self,
        x: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = activation_gradient(self.0, result, gradient)?;
        let to_bias = bias_gradient(bias, &gradient)?;
        Ok((x.track_op().then_some(gradient), to_bias))
    }
}

/// The gradient of a bias, if it is tracked: the sum over everything but the channels.
pub(crate) fn bias_gradient(bias: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
    if !bias.track_op() {
        return Ok(None);
    }
    let sums = on_cpu("add_bias", gradient, |g, layout| {
        dispatch!(g, "add_bias", channel_sums(g, layout))
    })?;
    Ok(Some(Tensor::new(sums, bias.device())?.to_dtype(bias.dtype())?))
}

fn forward<T: Element>(
    activation: Activation,
    x: &CpuStorage,
    lx: &Layout,
    b: &CpuStorage,
    lb: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (x, bias) = (values::<T>(x, lx)?, values::<T>(b, lb)?);
    let mut out = vec![T::zero(); x.len()];
    if !out.is_empty() {
        let row = x.len() / lx.dims()[0];
        let area = row / bias.len();
        out.par_chunks_mut(row).zip(x.par_chunks(row)).for_each(|(out, x)| {
            let planes = out.chunks_exact_mut(area).zip(x.chunks_exact(area));
            for ((out, x), &bias) in planes.zip(bias) {
                match activation {
                    Activation::None => out.iter_mut().zip(x).for_each(|(out, &x)| *out = x + bias),
                    Activation::Relu => out.iter_mut().zip(x).for_each(|(out, &x)| {
                        let sum = x + bias;
                        *out = if sum <= T::zero() { T::zero() } else { sum };
                    }),
                }
            }
        });
    }
    Ok((T::to_cpu_storage_owned(out), lx.shape().clone()))
}

/// The sum over everything but the channels, in doubles.
fn channel_sums<T: Element>(g: &CpuStorage, layout: &Layout) -> Result<Vec<f64>> {
    let gradient = values::<T>(g, layout)?;
    let channels = layout.dims()[1];
    let mut sums = vec![0.0; channels];
    if !gradient.is_empty() {
        let row = gradient.len() / layout.dims()[0];
        let area = row / channels;
        let per_channel = (0..channels).into_par_iter().map(|channel| {
            let rows = gradient.chunks_exact(row);
            rows.map(|row| sum(&row[channel * area..][..area], |g| g)).sum()
        });
        per_channel.collect_into_vec(&mut sums);
    }
    Ok(sums)
}
