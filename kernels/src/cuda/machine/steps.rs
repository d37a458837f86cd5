//! An attack's step, an optimizer's, the draws and the images of the next one.

use candle_core::Result;

use super::argument::Arg::{At, F32, U32, U64};
use super::argument::{Address, flag};
use super::launch::{Grid, Machine, each};
pub(crate) use crate::descent::SgdStep;
pub(crate) use crate::resident::Cut;

/// v ← min(max(v + step · sign(g), lower), upper).
pub(crate) fn sign_step(
    machine: &impl Machine,
    out: Address,
    [v, g, lower, upper]: [Address; 4],
    step: f32,
    n: u32,
) -> Result<()> {
    let args = [At(out), At(v), At(g), At(lower), At(upper), F32(step), U32(n)];
    each(machine, "sign_step", n, &args)
}

/// 1 in `flags` for every image whose gradient is zero throughout.
pub(crate) fn flag_zero(machine: &impl Machine, flags: Address, g: Address, batch: u32, len: u32) -> Result<()> {
    machine.launch("flag_zero", Grid::sums(batch, 1), &[At(flags), At(g), U32(len)])
}

/// One step of gradient descent on one parameter.
pub(crate) fn sgd_step(machine: &impl Machine, [theta, buffer, g]: [Address; 3], step: &SgdStep, n: u32) -> Result<()> {
    let args = [
        At(theta),
        At(buffer),
        At(g),
        U32(n),
        F32(step.rate as f32),
        F32(step.momentum as f32),
        F32(step.decay as f32),
        flag(step.nesterov),
        flag(step.first),
    ];
    each(machine, "sgd_step", n, &args)
}

/// Draws `[rows, len]` of the examples whose ids are at `ids`.
pub(crate) fn draws(
    machine: &impl Machine,
    out: Address,
    ids: Address,
    [rows, len]: [u32; 2],
    key: u64,
    normal: bool,
) -> Result<()> {
    let kernel = if normal { "philox_normal" } else { "philox_uniform" };
    let args = [At(out), At(ids), U32(rows), U32(len), U64(key)];
    each(machine, kernel, rows * len.div_ceil(4), &args)
}

/// Windows of the byte images that `rows` names; three numbers of `draws` for each.
pub(crate) fn crop_flip(
    machine: &impl Machine,
    out: Address,
    [images, rows, draws]: [Address; 3],
    batch: u32,
    cut: &Cut,
) -> Result<()> {
    let [c, h, w] = cut.image.map(|size| size as u32);
    let n = batch * c * h * w;
    let args = [
        At(out),
        At(images),
        At(rows),
        At(draws),
        U32(n),
        U32(c),
        U32(h),
        U32(w),
        U32(cut.pad as u32),
        flag(cut.reflect),
        F32(f32::from(cut.scale)),
    ];
    each(machine, "crop_flip", n, &args)
}
