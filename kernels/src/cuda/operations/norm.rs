//! Batch normalisation.

use std::sync::atomic::Ordering;

use candle_core::cuda::cudarc::driver::CudaSlice;
use candle_core::{CpuStorage, CudaStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::operand::{FORM, at, card, filled, made, only_on_a_gpu, partial, place};
use crate::activation::Activation;
use crate::cuda::card::Card;
use crate::cuda::machine::{self, Extent, GradientSums, Moments, Normalised, Source, Target};
use crate::{BatchNorm, Statistics};

struct Normalise {
    mean: CudaSlice<f32>,
    factor: CudaSlice<f32>,
    scale: CudaSlice<f64>,
    of_batch: bool,
    relu: bool,
    extent: Extent,
}

impl Normalise {
    fn moments(&self, card: &Card) -> Moments {
        Moments {
            mean: card.address(&self.mean),
            factor: card.address(&self.factor),
            scale: card.address(&self.scale),
        }
    }
}

pub(crate) fn batch_norm(
    images: &Tensor,
    norm: &BatchNorm,
    statistics: Statistics,
    activation: Activation,
) -> Result<Tensor> {
    let card = card(images)?;
    let images = images.contiguous()?;
    let (weight, bias) = (norm.weight.contiguous()?, norm.bias.contiguous()?);
    let extent = Extent::new(images.dims())?;
    let channels = extent.channels as usize;
    let op = Normalise {
        mean: card.room(channels)?,
        factor: card.room(channels)?,
        scale: card.room(channels)?,
        of_batch: statistics != Statistics::Running,
        relu: activation == Activation::Relu,
        extent,
    };
    let running = [
        at(&card, norm.running_mean.as_tensor())?,
        at(&card, norm.running_var.as_tensor())?,
    ];
    let sums = partial(&card, extent)?;
    let source = match statistics {
        Statistics::Running => Source::Running(running),
        Statistics::Batch | Statistics::BatchAndUpdate => Source::Batch {
            partial: card.address(&sums),
            running: (statistics == Statistics::BatchAndUpdate).then_some(running),
            momentum: norm.momentum,
        },
    };
    let (x, weight_at) = (at(&card, &images)?, at(&card, &weight)?);
    let moments = op.moments(&card);
    machine::moments(&*card, FORM, moments, x, weight_at, source, norm.epsilon, extent)?;
    if statistics == Statistics::BatchAndUpdate {
        norm.updates.fetch_add(1, Ordering::Relaxed);
    }
    images.apply_op3(&weight, &bias, op)
}

impl CustomOp3 for Normalise {
    only_on_a_gpu!("batch_norm", _x, _w, _b);

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        _: &CudaStorage,
        _: &Layout,
        b: &CudaStorage,
        lb: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&x.device)?;
        let (x, bias) = (place(&card, x, lx)?, place(&card, b, lb)?);
        let out = filled(&card, lx.shape().elem_count(), |out| {
            machine::normalise(
                &*card,
                FORM,
                out,
                [x, bias, 0],
                self.moments(&card),
                self.extent,
                self.relu,
            )
        })?;
        Ok((out, lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let card = card(x)?;
        let g = g.contiguous()?;
        let g_at = at(&card, &g)?;
        let of = Normalised {
            x: at(&card, x)?,
            y: if self.relu { at(&card, result)? } else { 0 },
            moments: self.moments(&card),
            weight: at(&card, weight)?,
            of_batch: self.of_batch,
            extent: self.extent,
        };
        let channels = self.extent.channels as usize;
        let mut sums = None;
        // The memory of the sums lives until everything is launched; the stream keeps the order.
        let room = partial(&card, self.extent)?;
        let both: CudaSlice<f32> = card.room(2 * channels)?;
        let (mut to_weight, mut to_bias) = (None, None);
        if self.of_batch || weight.track_op() || bias.track_op() {
            let [w, b] = [made(&card, channels, |_| Ok(()))?, made(&card, channels, |_| Ok(()))?];
            let places = GradientSums {
                partial: card.address(&room),
                to_weight: at(&card, &w)?,
                to_bias: at(&card, &b)?,
                slope: card.address(&both),
                offset: card.address(&both) + 4 * channels as u64,
            };
            machine::norm_gradient_sums(&*card, FORM, &of, g_at, places)?;
            to_weight = weight.track_op().then_some(w);
            to_bias = bias.track_op().then_some(b);
            sums = self.of_batch.then_some(places);
        }
        let to_images = || {
            made(&card, x.shape().clone(), |out| {
                machine::norm_gradient(&*card, FORM, [Target::new(out), Target::new(0)], &of, g_at, sums)
            })
        };
        Ok((x.track_op().then(to_images).transpose()?, to_weight, to_bias))
    }
}
