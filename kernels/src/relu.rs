//! max(x, 0). The gradient at 0 is 0, as in PyTorch; a NaN stays a NaN.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::element::{Element, check_dtypes, dispatch, values};

/// Numbers per task.
const CHUNK: usize = 1 << 14;

/// max(x, 0), for any shape.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    check_dtypes("relu", &[("operands", x)])?;
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
        Ok(Some(result.apply_op2_no_bwd(&gradient.contiguous()?, &ReluGradient)?))
    }
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
