//! Sums and ReLU.

use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::operand::{FORM, at, card, filled, made, only_on_a_gpu, partial, place};
use crate::activation::Activation;
use crate::cuda::card::Card;
use crate::cuda::machine::{self, Extent, count};

/// act(a + bias) or act(a + b).
struct Sum {
    relu: bool,
    /// Whether the second operand is a bias per channel.
    bias: bool,
}

pub(crate) fn add_bias(x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let relu = activation == Activation::Relu;
    x.contiguous()?.apply_op2(&bias.contiguous()?, Sum { relu, bias: true })
}

pub(crate) fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let op = Sum {
        relu: true,
        bias: false,
    };
    a.contiguous()?.apply_op2(&b.contiguous()?, op)
}

/// Any shape as one channel.
fn one_channel(len: usize) -> Result<Extent> {
    Ok(Extent {
        batch: 1,
        channels: 1,
        area: count(len)?,
    })
}

impl CustomOp2 for Sum {
    only_on_a_gpu!("sum", _x, _b);

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout, b: &CudaStorage, lb: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&x.device)?;
        let (x, b) = (place(&card, x, lx)?, place(&card, b, lb)?);
        let (extent, operands) = if self.bias {
            (Extent::new(lx.dims())?, [x, b, 0])
        } else {
            (one_channel(lx.shape().elem_count())?, [x, 0, b])
        };
        let out = filled(&card, lx.shape().elem_count(), |out| {
            machine::finish(&*card, FORM, [out, 0], operands, extent, self.relu)
        })?;
        Ok((out, lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, b: &Tensor, result: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        if !x.track_op() && !b.track_op() {
            return Ok((None, None));
        }
        let g = if self.relu {
            relu_gradient(result, g)?
        } else {
            g.contiguous()?
        };
        let to_second = match (b.track_op(), self.bias) {
            (false, _) => None,
            (true, false) => Some(g.clone()),
            (true, true) => {
                let card = card(x)?;
                let extent = Extent::new(x.dims())?;
                let room = partial(&card, extent)?;
                let g = at(&card, &g)?;
                Some(made(&card, b.shape().clone(), |out| {
                    machine::channel_sums(&*card, FORM, out, g, card.address(&room), extent)
                })?)
            }
        };
        Ok((x.track_op().then_some(g), to_second))
    }
}

fn relu_gradient(result: &Tensor, g: &Tensor) -> Result<Tensor> {
    let card = card(result)?;
    let g = g.contiguous()?;
    let (y, g_at) = (at(&card, result)?, at(&card, &g)?);
    let n = count(result.elem_count())?;
    made(&card, result.shape().clone(), |out| {
        machine::relu_gradient(&*card, FORM, out, [y, g_at], n)
    })
}

struct Relu;

pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Relu)
}

impl CustomOp1 for Relu {
    only_on_a_gpu!("relu", _x);

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&x.device)?;
        let x = place(&card, x, layout)?;
        let extent = one_channel(layout.shape().elem_count())?;
        let out = filled(&card, layout.shape().elem_count(), |out| {
            machine::finish(&*card, FORM, [out, 0], [x, 0, 0], extent, true)
        })?;
        Ok((out, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, result: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        x.track_op().then(|| relu_gradient(result, g)).transpose()
    }
}
