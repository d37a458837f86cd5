//! Pooling.

use candle_core::cuda::cudarc::driver::CudaSlice;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::operand::{FORM, at, card, filled, made, only_on_a_gpu, place};
use crate::cuda::card::Card;
use crate::cuda::machine::{self, Target, Windows, count};

struct Pool {
    windows: Windows,
    maximum: bool,
}

pub(crate) fn max_pool2d(images: &Tensor, size: usize) -> Result<Tensor> {
    let windows = Windows::square(images.dims4()?.into(), size);
    images.contiguous()?.apply_op1(Pool { windows, maximum: true })
}

pub(crate) fn avg_pool2d(images: &Tensor, size: usize) -> Result<Tensor> {
    let windows = Windows::square(images.dims4()?.into(), size);
    images.contiguous()?.apply_op1(Pool {
        windows,
        maximum: false,
    })
}

impl CustomOp1 for Pool {
    only_on_a_gpu!("pool", _x);

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&x.device)?;
        let x = place(&card, x, layout)?;
        count(layout.shape().elem_count())?;
        let shape = Shape::from(self.windows.out().to_vec());
        let out = filled(&card, shape.elem_count(), |out| {
            if self.maximum {
                machine::max_pool(&*card, FORM, [out, 0], x, self.windows)
            } else {
                machine::mean_pool(&*card, FORM, out, x, self.windows)
            }
        })?;
        Ok((out, shape))
    }

    fn bwd(&self, images: &Tensor, result: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        if !images.track_op() {
            return Ok(None);
        }
        let card = card(images)?;
        let g = g.contiguous()?;
        let (x, g_at) = (at(&card, images)?, at(&card, &g)?);
        let gradient = made(&card, images.shape().clone(), |out| {
            if !self.maximum {
                return machine::mean_pool_gradient(&*card, FORM, Target::new(out), g_at, self.windows);
            }
            // Which number was the maximum is found once more; nothing was kept for it.
            let places: CudaSlice<u8> = card.room(result.elem_count())?;
            let again: CudaSlice<f32> = card.room(result.elem_count())?;
            let places_at = card.address(&places);
            let to = [card.address(&again), places_at];
            machine::max_pool(&*card, FORM, to, x, self.windows)?;
            machine::max_pool_gradient(&*card, FORM, Target::new(out), [places_at, g_at], self.windows)
        })?;
        Ok(Some(gradient))
    }
}
