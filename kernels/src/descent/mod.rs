//! One step of gradient descent with momentum, in place.
//!
//! g ← g + decay · θ;  b ← momentum · b + g, at first b = g;  θ ← θ − rate · d
//!
//! with d = b, with Nesterov's momentum d = g + momentum · b, and without momentum d = g, as in `torch.optim.SGD`.

mod step;

use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;

use crate::element::{Element, dispatch, values};
use crate::wide::wide;
pub use step::SgdStep;

/// Numbers per task.
const CHUNK: usize = 1 << 15;

/// Moves `parameter` θ one step, and `buffer` b with it, which may be left out without momentum. `gradient` is g; all
/// are of one shape, type and device, θ and b contiguous.
///
/// # Errors
/// Operands that do not fit each other, and momentum without a buffer.
pub fn sgd_step(parameter: &Var, buffer: Option<&Tensor>, gradient: &Tensor, step: &SgdStep) -> Result<()> {
    let remembers = step.momentum != 0.0;
    for other in [Some(gradient), buffer].into_iter().flatten() {
        if other.dims() != parameter.dims() || other.dtype() != parameter.dtype() {
            bail!(
                "sgd-step: a parameter {:?} {:?} with {:?} {:?}",
                parameter.dims(),
                parameter.dtype(),
                other.dims(),
                other.dtype()
            );
        }
    }
    if remembers && buffer.is_none() {
        bail!("sgd-step: momentum needs a buffer");
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes("sgd_step", parameter)? {
        return crate::cuda::operations::sgd_step(parameter, buffer, gradient, step);
    }
    let gradient = gradient.detach().contiguous()?;
    let theta = parameter.as_detached_tensor();
    let direction = match buffer.filter(|_| remembers) {
        None => Direction::Gradient,
        Some(buffer) => {
            buffer.inplace_op3(&gradient, &theta, &Remember(*step))?;
            if step.nesterov {
                Direction::Ahead
            } else {
                Direction::Buffer
            }
        }
    };
    let descend = Descend { step: *step, direction };
    theta.inplace_op3(&gradient, buffer.unwrap_or(&gradient), &descend)
}

/// b ← momentum · b + g.
struct Remember(SgdStep);

impl InplaceOp3 for Remember {
    fn name(&self) -> &'static str {
        "sgd-step-momentum"
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
        dispatch!(g, self.name(), remember(&self.0, (b, lb), (g, lg), (p, lp)))
    }
}

/// θ ← θ − rate · d.
struct Descend {
    step: SgdStep,
    direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Direction {
    /// g.
    Gradient,
    /// b.
    Buffer,
    /// g + momentum · b.
    Ahead,
}

impl InplaceOp3 for Descend {
    fn name(&self) -> &'static str {
        "sgd-step"
    }

    fn cpu_fwd(
        &self,
        p: &mut CpuStorage,
        lp: &Layout,
        g: &CpuStorage,
        lg: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<()> {
        dispatch!(g, self.name(), descend(self, (p, lp), (g, lg), (b, lb)))
    }
}

/// The numbers of a contiguous tensor, to be changed.
fn values_mut<'a, T: Element>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("operand of shape {:?} is not contiguous", layout.shape());
    };
    match T::numbers_mut(storage) {
        Some(numbers) => Ok(&mut numbers[start..end]),
        None => bail!("operands are of different number types"),
    }
}

fn remember<T: Element>(
    step: &SgdStep,
    (b, lb): (&mut CpuStorage, &Layout),
    (g, lg): (&CpuStorage, &Layout),
    (p, lp): (&CpuStorage, &Layout),
) -> Result<()> {
    let (buffer, gradient, parameter) = (values_mut::<T>(b, lb)?, values::<T>(g, lg)?, values::<T>(p, lp)?);
    let (momentum, decay) = (T::from_f64(step.momentum), T::from_f64(step.decay));
    buffer
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK).zip(parameter.par_chunks(CHUNK)))
        .for_each(|(buffer, (gradient, parameter))| {
            if step.first {
                begin(buffer, gradient, parameter, decay)
            } else {
                accumulate(buffer, gradient, parameter, momentum, decay)
            }
        });
    Ok(())
}

fn descend<T: Element>(
    op: &Descend,
    (p, lp): (&mut CpuStorage, &Layout),
    (g, lg): (&CpuStorage, &Layout),
    (b, lb): (&CpuStorage, &Layout),
) -> Result<()> {
    let (parameter, gradient, buffer) = (values_mut::<T>(p, lp)?, values::<T>(g, lg)?, values::<T>(b, lb)?);
    let [rate, momentum, decay] = [op.step.rate, op.step.momentum, op.step.decay].map(T::from_f64);
    parameter
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK).zip(buffer.par_chunks(CHUNK)))
        .for_each(|(parameter, (gradient, buffer))| match op.direction {
            Direction::Gradient => along_gradient(parameter, gradient, rate, decay),
            Direction::Buffer => along(parameter, buffer, rate),
            Direction::Ahead => ahead(parameter, gradient, buffer, rate, momentum, decay),
        });
    Ok(())
}

// Without decay the parameter is left out of g + decay · θ, so that an infinite one does not make a NaN.

wide! {
    fn begin[T: Element](buffer: &mut [T], gradient: &[T], parameter: &[T], decay: T) {
        if decay == T::zero() {
            buffer.copy_from_slice(gradient);
        } else {
            let sources = gradient.iter().zip(parameter);
            buffer.iter_mut().zip(sources).for_each(|(b, (&g, &p))| *b = g + p * decay);
        }
    }
}

wide! {
    fn accumulate[T: Element](buffer: &mut [T], gradient: &[T], parameter: &[T], momentum: T, decay: T) {
        let sources = gradient.iter().zip(parameter);
        if decay == T::zero() {
            buffer.iter_mut().zip(gradient).for_each(|(b, &g)| *b = *b * momentum + g);
        } else {
            buffer.iter_mut().zip(sources).for_each(|(b, (&g, &p))| *b = *b * momentum + (g + p * decay));
        }
    }
}

wide! {
    fn along[T: Element](parameter: &mut [T], direction: &[T], rate: T) {
        parameter.iter_mut().zip(direction).for_each(|(p, &d)| *p -= d * rate);
    }
}

wide! {
    fn along_gradient[T: Element](parameter: &mut [T], gradient: &[T], rate: T, decay: T) {
        if decay == T::zero() {
            parameter.iter_mut().zip(gradient).for_each(|(p, &g)| *p -= g * rate);
        } else {
            parameter.iter_mut().zip(gradient).for_each(|(p, &g)| *p -= (g + *p * decay) * rate);
        }
    }
}

wide! {
    fn ahead[T: Element](parameter: &mut [T], gradient: &[T], buffer: &[T], rate: T, momentum: T, decay: T) {
        let sources = gradient.iter().zip(buffer);
        if decay == T::zero() {
            parameter.iter_mut().zip(sources).for_each(|(p, (&g, &b))| *p -= (g + b * momentum) * rate);
        } else {
            parameter.iter_mut().zip(sources).for_each(|(p, (&g, &b))| *p -= ((g + *p * decay) + b * momentum) * rate);
        }
    }
}

/// The plain form of the step, one number after the other, for tests of the others: the CPU's here and the GPU's.
#[cfg(test)]
pub(crate) fn plain<T: Element>(parameter: &mut [T], buffer: &mut [T], gradient: &[T], step: &SgdStep) {
    let [rate, momentum, decay] = [step.rate, step.momentum, step.decay].map(T::from_f64);
    for ((p, b), &g) in parameter.iter_mut().zip(buffer).zip(gradient) {
        let g = if step.decay == 0.0 { g } else { g + *p * decay };
        let mut direction = g;
        if step.momentum != 0.0 {
            *b = if step.first { g } else { *b * momentum + g };
            direction = if step.nesterov { g + *b * momentum } else { *b };
        }
        *p -= direction * rate;
    }
}

/// The steps that tests take: without and with momentum and decay, Nesterov's too.
#[cfg(test)]
pub(crate) fn kinds() -> impl Iterator<Item = SgdStep> {
    let ways = [
        (0.0, 0.0, false),
        (0.0, 0.1, false),
        (0.9, 0.0, false),
        (0.9, 3.5e-3, false),
        (0.9, 0.0, true),
        (0.9, 0.1, true),
    ];
    ways.into_iter().map(|(momentum, decay, nesterov)| SgdStep {
        rate: 0.01,
        momentum,
        decay,
        nesterov,
        first: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use random::Stream;

    fn three_steps<T: Element + std::fmt::Debug>() {
        // More than one task.
        let n = CHUNK + 17;
        let draw = |seed| -> Vec<T> {
            let draws = Stream::new(seed).uniform(&[0], n);
            draws.iter().map(|&u| T::from_f64(2.0 * f64::from(u) - 1.0)).collect()
        };
        let (start, gradient) = (draw(1), draw(2));
        for kind in kinds() {
            let put = |values: &[T]| Tensor::from_slice(values, n, &Device::Cpu).unwrap();
            let (theta, buffer) = (
                Var::from_tensor(&put(&start)).unwrap(),
                put(&vec![T::from_f64(f64::NAN); n]),
            );
            let (mut expected, mut memory) = (start.clone(), start.clone());
            for first in [true, false, false] {
                let step = SgdStep { first, ..kind };
                sgd_step(&theta, Some(&buffer), &put(&gradient), &step).unwrap();
                plain(&mut expected, &mut memory, &gradient, &step);
            }
            assert_eq!(theta.to_vec1::<T>().unwrap(), expected, "{kind:?}");
        }
    }

    #[test]
    fn steps_are_the_plain_ones_bit_by_bit() {
        three_steps::<f32>();
        three_steps::<f64>();
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let theta = Var::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
        let step = kinds().nth(2).unwrap();
        let error = |buffer: Option<&Tensor>, gradient: &Tensor| {
            sgd_step(&theta, buffer, gradient, &step).unwrap_err().to_string()
        };
        let four = Tensor::zeros(4, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(error(Some(&theta.copy().unwrap()), &four).contains("[3]"));
        assert!(error(None, &theta.copy().unwrap()).contains("buffer"));
    }
}
