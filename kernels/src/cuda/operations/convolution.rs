//! Convolutions.

use candle_core::cuda::cudarc::driver::CudaSlice;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::operand::{at, card, filled, made, only_on_a_gpu, place};
use crate::convolution::Geometry;
use crate::cuda::card::Card;
use crate::cuda::machine::{self, Address, Convolve, Form, Machine, Pass, count};
use crate::device::{Precision, settings};

/// One product of a convolution, in the precision that is set.
fn product(card: &Card, geometry: &Geometry, pass: Pass, [images, weights, result]: [Address; 3]) -> Result<()> {
    let half = settings().precision == Precision::Bf16;
    let form = Form { half, last: false };
    let convolve = Convolve {
        geometry: *geometry,
        form,
    };
    if !half {
        return card.convolve(&convolve, pass, [images, weights, result], false);
    }
    let lens = [
        geometry.batch * geometry.input_len(),
        geometry.outputs * geometry.patch(),
        geometry.batch * geometry.output_len(),
    ];
    let rounded: [CudaSlice<u16>; 3] = [card.room(lens[0])?, card.room(lens[1])?, card.room(lens[2])?];
    let places = [0, 1, 2].map(|i| card.address(&rounded[i]));
    let written = match pass {
        Pass::Forward => 2,
        Pass::ToImages => 0,
        Pass::ToWeights => 1,
    };
    let plain = [images, weights, result];
    for i in 0..3 {
        if i != written {
            machine::to_bf16(card, places[i], plain[i], count(lens[i])?)?;
        }
    }
    card.convolve(&convolve, pass, places, false)?;
    machine::to_f32(card, plain[written], places[written], count(lens[written])?)
}

struct Convolution(Geometry);

pub(crate) fn conv2d(images: &Tensor, weights: &Tensor, geometry: Geometry) -> Result<Tensor> {
    images
        .contiguous()?
        .apply_op2(&weights.contiguous()?, Convolution(geometry))
}

impl CustomOp2 for Convolution {
    only_on_a_gpu!("conv2d", _x, _w);

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout, w: &CudaStorage, lw: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&x.device)?;
        let shape = Shape::from(self.0.output_shape());
        let operands = [place(&card, x, lx)?, place(&card, w, lw)?];
        let out = filled(&card, shape.elem_count(), |out| {
            product(&card, &self.0, Pass::Forward, [operands[0], operands[1], out])
        })?;
        Ok((out, shape))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let card = card(x)?;
        let g = g.contiguous()?;
        let [x_at, w_at, g_at] = [at(&card, x)?, at(&card, w)?, at(&card, &g)?];
        let to_images = || {
            made(&card, x.shape().clone(), |out| {
                product(&card, &self.0, Pass::ToImages, [out, w_at, g_at])
            })
        };
        let to_weights = || {
            made(&card, w.shape().clone(), |out| {
                product(&card, &self.0, Pass::ToWeights, [x_at, out, g_at])
            })
        };
        Ok((
            x.track_op().then(to_images).transpose()?,
            w.track_op().then(to_weights).transpose()?,
        ))
    }
}
