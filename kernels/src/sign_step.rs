//! The step of an ascent along the signs of a gradient, and the way back into a box, in one pass.

use candle_core::{CpuStorage, Layout, Result, Tensor, bail};
use rayon::prelude::*;

use crate::check::check_dtypes;
use crate::element::{Element, values};
use crate::wide::wide;

/// min(max(x + step · sign(g), lower), upper) for tensors of one shape, with sign(0) = 0. Nothing is tracked.
pub fn sign_step(points: &Tensor, gradient: &Tensor, step: f64, lower: &Tensor, upper: &Tensor) -> Result<Tensor> {
    let operands = [
        ("points", points),
        ("gradients", gradient),
        ("lower bounds", lower),
        ("upper bounds", upper),
    ];
    check_dtypes("sign_step", &operands)?;
    for (name, operand) in operands {
        if operand.dims() != points.dims() {
            bail!("sign_step: points {:?} but {name} {:?}", points.dims(), operand.dims());
        }
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes("sign_step", points)? {
        return crate::cuda::operations::sign_step(points, gradient, step, lower, upper);
    }
    if !points.device().is_cpu() {
        let moved = (points + (gradient.sign()? * step)?)?;
        return Ok(moved.maximum(lower)?.minimum(upper)?.detach());
    }
    let operands = [points, gradient, lower, upper].map(|operand| operand.contiguous());
    let [points, gradient, lower, upper] = operands;
    let tensors = [points?, gradient?, lower?, upper?];
    match tensors[0].dtype() {
        candle_core::DType::F32 => stepped::<f32>(&tensors, step),
        _ => stepped::<f64>(&tensors, step),
    }
}

fn stepped<T: Element>(tensors: &[Tensor; 4], step: f64) -> Result<Tensor> {
    const CHUNK: usize = 1 << 14;
    let guards = tensors.each_ref().map(|tensor| tensor.storage_and_layout());
    let of = |index: usize| -> Result<&[T]> {
        let (storage, layout): (&candle_core::Storage, &Layout) = (&guards[index].0, guards[index].1);
        match storage {
            candle_core::Storage::Cpu(storage) => values::<T>(storage as &CpuStorage, layout),
            _ => bail!("sign_step: operands lie in different places"),
        }
    };
    let (points, gradient, lower, upper) = (of(0)?, of(1)?, of(2)?, of(3)?);
    let mut out = vec![T::zero(); points.len()];
    let step = T::from_f64(step);
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(index, out)| {
        let range = index * CHUNK..index * CHUNK + out.len();
        let operands = [points, gradient, lower, upper].map(|values| &values[range.clone()]);
        step_into(operands, step, out);
    });
    Tensor::from_vec(out, tensors[0].shape(), &candle_core::Device::Cpu)
}

wide! {
    fn step_into[T: Element](operands: [&[T]; 4], step: T, out: &mut [T]) {
        let [points, gradient, lower, upper] = operands;
        let bounds = lower.iter().zip(upper);
        for (((out, &point), &g), (&lower, &upper)) in out.iter_mut().zip(points).zip(gradient).zip(bounds) {
            let up = if g > T::zero() { step } else { T::zero() };
            let down = if g < T::zero() { step } else { T::zero() };
            let moved = point + (up - down);
            let moved = if moved < lower { lower } else { moved };
            *out = if moved > upper { upper } else { moved };
        }
    }
}
