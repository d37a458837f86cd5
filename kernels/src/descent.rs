//! The steps of gradient descent with momentum, each in one pass and in place.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor};
use rayon::prelude::*;

use crate::element::{Element, dispatch, values};
use crate::wide::wide;

/// Numbers per task.
const CHUNK: usize = 1 << 15;

/// b ← momentum · b + (g + decay · θ) for tensors of one shape in the computer's memory, contiguous.
pub fn accumulate_momentum(
    buffer: &Tensor,
    gradient: &Tensor,
    parameter: &Tensor,
    momentum: f64,
    decay: f64,
) -> Result<()> {
    buffer.inplace_op3(gradient, parameter, &Accumulate { momentum, decay })
}

/// θ ← θ − rate · d, likewise.
pub fn descend(parameter: &Tensor, direction: &Tensor, rate: f64) -> Result<()> {
    parameter.inplace_op2(direction, &Descend { rate })
}

struct Accumulate {
    momentum: f64,
    decay: f64,
}

impl InplaceOp3 for Accumulate {
    fn name(&self) -> &'static str {
        "accumulate-momentum"
    }

    fn cpu_fwd(
        &self,
        b: &mut CpuStorage,
        lb: &Layout,
        g: &CpuStorage,
        lg: &Layout,
        p: &CpuStorage,
        lp: &Layout,
    ) -> Result<()> {
        dispatch!(g, self.name(), accumulate(self, b, lb, g, lg, p, lp))
    }
}

struct Descend {
    rate: f64,
}

impl InplaceOp2 for Descend {
    fn name(&self) -> &'static str {
        "descend"
    }

    fn cpu_fwd(&self, p: &mut CpuStorage, lp: &Layout, d: &CpuStorage, ld: &Layout) -> Result<()> {
        dispatch!(d, self.name(), descend_by(self, p, lp, d, ld))
    }
}

/// The numbers of a contiguous tensor, to be changed.
fn values_mut<'a, T: Element>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("operand of shape {:?} is not contiguous", layout.shape());
    };
    match T::numbers_mut(storage) {
        Some(numbers) => Ok(&mut numbers[start..end]),
        None => candle_core::bail!("operands are of different number types"),
    }
}

fn same_sizes(op: &str, layouts: &[&Layout]) -> Result<()> {
    if let Some(other) = layouts.iter().find(|it| it.shape() != layouts[0].shape()) {
        candle_core::bail!("{op}: {:?} and {:?} differ", layouts[0].shape(), other.shape());
    }
    Ok(())
}

fn accumulate<T: Element>(
    op: &Accumulate,
    b: &mut CpuStorage,
    lb: &Layout,
    g: &CpuStorage,
    lg: &Layout,
    p: &CpuStorage,
    lp: &Layout,
) -> Result<()> {
    same_sizes(op.name(), &[lb, lg, lp])?;
    let (buffer, gradient, parameter) = (values_mut::<T>(b, lb)?, values::<T>(g, lg)?, values::<T>(p, lp)?);
    let (momentum, decay) = (T::from_f64(op.momentum), T::from_f64(op.decay));
    buffer
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK).zip(parameter.par_chunks(CHUNK)))
        .for_each(|(buffer, (gradient, parameter))| accumulate_into(buffer, gradient, parameter, momentum, decay));
    Ok(())
}

fn descend_by<T: Element>(op: &Descend, p: &mut CpuStorage, lp: &Layout, d: &CpuStorage, ld: &Layout) -> Result<()> {
    same_sizes(op.name(), &[lp, ld])?;
    let (parameter, direction) = (values_mut::<T>(p, lp)?, values::<T>(d, ld)?);
    let rate = T::from_f64(op.rate);
    parameter
        .par_chunks_mut(CHUNK)
        .zip(direction.par_chunks(CHUNK))
        .for_each(|(parameter, direction)| descend_in(parameter, direction, rate));
    Ok(())
}

wide! {
    fn accumulate_into[T: Element](buffer: &mut [T], gradient: &[T], parameter: &[T], momentum: T, decay: T) {
        let sources = gradient.iter().zip(parameter);
        // Without decay the parameter is left out, so that an infinite one does not make a NaN.
        if decay == T::zero() {
            buffer.iter_mut().zip(gradient).for_each(|(b, &g)| *b = *b * momentum + g);
        } else {
            buffer.iter_mut().zip(sources).for_each(|(b, (&g, &p))| *b = *b * momentum + (g + p * decay));
        }
    }
}

wide! {
    fn descend_in[T: Element](parameter: &mut [T], direction: &[T], rate: T) {
        parameter.iter_mut().zip(direction).for_each(|(p, &d)| *p -= d * rate);
    }
}
