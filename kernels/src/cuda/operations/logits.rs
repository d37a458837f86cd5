//! Rows of logits.

use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::operand::{at, card, filled, made, only_on_a_gpu, place};
use crate::cuda::card::Card;
use crate::cuda::machine::{self, count};

fn rows(dims: &[usize]) -> Result<[u32; 2]> {
    count(dims[0] * dims[1])?;
    Ok([dims[0] as u32, dims[1] as u32])
}

struct LogSoftmax;

pub(crate) fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    logits.contiguous()?.apply_op1(LogSoftmax)
}

impl CustomOp1 for LogSoftmax {
    only_on_a_gpu!("log_softmax", _z);

    fn cuda_fwd(&self, z: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&z.device)?;
        let (z, shape) = (place(&card, z, layout)?, rows(layout.dims())?);
        let out = filled(&card, layout.shape().elem_count(), |out| {
            machine::log_softmax(&*card, out, z, shape)
        })?;
        Ok((out, layout.shape().clone()))
    }

    fn bwd(&self, z: &Tensor, result: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        if !z.track_op() {
            return Ok(None);
        }
        let card = card(z)?;
        let g = g.contiguous()?;
        let (logs, g_at, shape) = (at(&card, result)?, at(&card, &g)?, rows(z.dims())?);
        let to = made(&card, z.shape().clone(), |out| {
            machine::log_softmax_gradient(&*card, out, logs, g_at, shape)
        })?;
        Ok(Some(to))
    }
}

struct CrossEntropy;

/// A label that is no class gives a NaN: to look at the labels here would stop the stream.
pub(crate) fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    logits.contiguous()?.apply_op2(&labels.contiguous()?, CrossEntropy)
}

impl CustomOp2 for CrossEntropy {
    only_on_a_gpu!("cross_entropy", _z, _y);

    fn cuda_fwd(&self, z: &CudaStorage, lz: &Layout, y: &CudaStorage, ly: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&z.device)?;
        let (z, y, shape) = (place(&card, z, lz)?, place(&card, y, ly)?, rows(lz.dims())?);
        let batch = shape[0] as usize;
        let out = filled(&card, batch, |out| machine::cross_entropy(&*card, out, z, y, shape))?;
        Ok((out, batch.into()))
    }

    fn bwd(&self, z: &Tensor, labels: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        if !z.track_op() {
            return Ok((None, None));
        }
        let card = card(z)?;
        let g = g.contiguous()?;
        let operands = [at(&card, z)?, at(&card, labels)?, at(&card, &g)?];
        let shape = rows(z.dims())?;
        let to = made(&card, z.shape().clone(), |out| {
            machine::cross_entropy_gradient(&*card, out, operands, shape)
        })?;
        Ok((Some(to), None))
    }
}
