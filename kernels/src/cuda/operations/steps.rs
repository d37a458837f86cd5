//! An attack's step, an optimizer's, draws and images.

use candle_core::{Result, Tensor, Var};

use super::operand::{at, card, made};
use crate::cuda::machine::{self, Cut, SgdStep, count};

pub(crate) fn sign_step(
    points: &Tensor,
    gradient: &Tensor,
    step: f64,
    lower: &Tensor,
    upper: &Tensor,
) -> Result<Tensor> {
    let card = card(points)?;
    let operands = [points, gradient, lower, upper].map(Tensor::contiguous);
    let [v, g, lower, upper] = operands;
    let (v, g, lower, upper) = (v?, g?, lower?, upper?);
    let places = [at(&card, &v)?, at(&card, &g)?, at(&card, &lower)?, at(&card, &upper)?];
    let n = count(v.elem_count())?;
    made(&card, v.shape().clone(), |out| {
        machine::sign_step(&*card, out, places, step as f32, n)
    })
}

pub(crate) fn sgd_step(theta: &Var, buffer: Option<&Tensor>, gradient: &Tensor, step: &SgdStep) -> Result<()> {
    let card = card(theta)?;
    let gradient = gradient.contiguous()?;
    let buffer = buffer.map_or(Ok(0), |buffer| at(&card, buffer))?;
    let places = [at(&card, theta.as_tensor())?, buffer, at(&card, &gradient)?];
    machine::sgd_step(&*card, places, step, count(theta.elem_count())?)
}

pub(crate) fn draws(like: &Tensor, key: u64, ids: &[u64], normal: bool) -> Result<Tensor> {
    let card = card(like)?;
    let len = like.elem_count() / ids.len().max(1);
    let shape = [count(ids.len())?, count(len)?];
    let ids = card.upload(ids)?;
    made(&card, like.shape().clone(), |out| {
        machine::draws(&*card, out, card.address(&ids), shape, key, normal)
    })
}

pub(crate) fn crop_flip(images: &Tensor, rows: &[u32], draws: &[[u32; 3]], cut: &Cut) -> Result<Tensor> {
    let card = card(images)?;
    let [c, h, w] = cut.image;
    let batch = count(rows.len())?;
    let (rows_on_card, draws) = (card.upload(rows)?, card.upload(draws.as_flattened())?);
    let operands = [at(&card, images)?, card.address(&rows_on_card), card.address(&draws)];
    made(&card, (rows.len(), c, h, w), |out| {
        machine::crop_flip(&*card, out, operands, batch, cut)
    })
}
