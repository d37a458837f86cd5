//! max(x, 0). The gradient at 0 is 0, as in PyTorch; a NaN stays a NaN.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::activation::Activation;
use crate::check::check_dtypes;
use crate::element::{Element, dispatch, values};

/// Numbers per task.
const CHUNK: usize = 1 << 14;

/// max(x, 0), for any shape.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    check_dtypes("relu", &[("operands", x)])?;
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes("relu", x)? {
        return crate::cuda::operations::relu(x);
    }
    x.contiguous()?.apply_op1(Relu)
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(x, "relu", forward(x, layout))
    }

    fn bwd(&self, x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        Ok(Some(masked(result, gradient)?))
    }
}

/// From the gradient of an operation's result to that of its activation's input.
pub(crate) fn activation_gradient(activation: Activation, result: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::None => gradient.contiguous(),
        Activation::Relu => masked(result, gradient),
    }
}

/// The gradient where the result of a ReLU is positive, else zero.
fn masked(result: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    result.apply_op2_no_bwd(&gradient.contiguous()?, &ReluGradient)
}

/// max(a + b, 0) for two tensors of one shape.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check_dtypes("add_relu", &[("operands", a), ("second operands", b)])?;
    if a.dims() != b.dims() {
        bail!("add_relu: {:?} and {:?} differ", a.dims(), b.dims());
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes("add_relu", a)? {
        return crate::cuda::operations::add_relu(a, b);
    }
    a.contiguous()?.apply_op2(&b.contiguous()?, AddRelu)
}

struct AddRelu;

impl CustomOp2 for AddRelu {
    fn name(&self) -> &'static str {
        "add_relu"
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(a, "add_relu", add_forward(a, la, b, lb))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        if !a.track_op() && !b.track_op() {
            return Ok((None, None));
        }
        let gradient = masked(result, gradient)?;
        Ok((a.track_op().then(|| gradient.clone()), b.track_op().then_some(gradient)))
    }
}

fn add_forward<T: Element>(a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
    let (a, b) = (values::<T>(a, la)?, values::<T>(b, lb)?);
    let mut out = vec![T::zero(); a.len()];
    out.par_chunks_mut(CHUNK)
        .zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)))
        .for_each(|(out, (a, b))| {
            for (out, (&a, &b)) in out.iter_mut().zip(a.iter().zip(b)) {
                let sum = a + b;
                *out = if sum <= T::zero() { T::zero() } else { sum };
            }
        });
    Ok((T::to_cpu_storage_owned(out), la.shape().clone()))
}

struct ReluGradient;

impl CustomOp2 for ReluGradient {
    fn name(&self) -> &'static str {
        "relu-gradient"
    }

    fn cpu_fwd(&self, y: &CpuStorage, ly: &Layout, g: &CpuStorage, lg: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(y, "relu", backward(y, ly, g, lg))
    }
}

fn forward<T: Element>(x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let x = values::<T>(x, layout)?;
    let mut out = vec![T::zero(); x.len()];
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = if x <= T::zero() { T::zero() } else { x };
        }
    });
    Ok((T::to_cpu_storage_owned(out), layout.shape().clone()))
}

fn backward<T: Element>(y: &CpuStorage, ly: &Layout, g: &CpuStorage, lg: &Layout) -> Result<(CpuStorage, Shape)> {
    let (y, gradient) = (values::<T>(y, ly)?, values::<T>(g, lg)?);
    let mut out = vec![T::zero(); y.len()];
    out.par_chunks_mut(CHUNK)
        .zip(y.par_chunks(CHUNK).zip(gradient.par_chunks(CHUNK)))
        .for_each(|(out, (y, gradient))| {
            for (out, (&y, &gradient)) in out.iter_mut().zip(y.iter().zip(gradient)) {
                *out = if y <= T::zero() { T::zero() } else { gradient };
            }
        });
    Ok((T::to_cpu_storage_owned(out), ly.shape().clone()))
}
