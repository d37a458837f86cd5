//! Fully connected layers.

use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::operand::{at, card, filled, made, only_on_a_gpu, place};
use crate::cuda::card::Card;

struct Linear;

pub(crate) fn linear(inputs: &Tensor, weights: &Tensor) -> Result<Tensor> {
    inputs.contiguous()?.apply_op2(&weights.contiguous()?, Linear)
}

impl CustomOp2 for Linear {
    only_on_a_gpu!("linear", _x, _w);

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout, w: &CudaStorage, lw: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&x.device)?;
        let (batch, features) = lx.shape().dims2()?;
        let (outputs, _) = lw.shape().dims2()?;
        let (x, w) = (place(&card, x, lx)?, place(&card, w, lw)?);
        let out = filled(&card, batch * outputs, |out| {
            card.multiply(out, [x, w], [batch, outputs, features], [false, true])
        })?;
        Ok((out, (batch, outputs).into()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let card = card(x)?;
        let g = g.contiguous()?;
        let (batch, features) = x.dims2()?;
        let (outputs, _) = w.dims2()?;
        let [x_at, w_at, g_at] = [at(&card, x)?, at(&card, w)?, at(&card, &g)?];
        let to_inputs = || {
            made(&card, x.shape().clone(), |out| {
                card.multiply(out, [g_at, w_at], [batch, features, outputs], [false, false])
            })
        };
        let to_weights = || {
            made(&card, w.shape().clone(), |out| {
                card.multiply(out, [g_at, x_at], [outputs, features, batch], [true, false])
            })
        };
        Ok((
            x.track_op().then(to_inputs).transpose()?,
            w.track_op().then(to_weights).transpose()?,
        ))
    }
}
