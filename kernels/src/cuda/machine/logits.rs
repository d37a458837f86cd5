//! Rows of logits: log softmax, cross entropy, the losses that attacks ascend.

use candle_core::Result;

use super::argument::Address;
use super::argument::Arg::{At, F32, I32, U32};
use super::launch::{Grid, Machine};
use crate::ascent::Loss;

/// log softmax of every row.
pub(crate) fn log_softmax(machine: &impl Machine, out: Address, z: Address, [batch, classes]: [u32; 2]) -> Result<()> {
    let args = [At(out), At(z), U32(batch), U32(classes)];
    machine.launch("log_softmax", Grid::rows(batch), &args)
}

/// Its gradient, from its result.
pub(crate) fn log_softmax_gradient(
    machine: &impl Machine,
    out: Address,
    logs: Address,
    g: Address,
    [batch, classes]: [u32; 2],
) -> Result<()> {
    let args = [At(out), At(logs), At(g), U32(batch), U32(classes)];
    machine.launch("log_softmax_gradient", Grid::rows(batch), &args)
}

/// Cross entropy of every row.
pub(crate) fn cross_entropy(
    machine: &impl Machine,
    out: Address,
    z: Address,
    labels: Address,
    [batch, classes]: [u32; 2],
) -> Result<()> {
    let args = [At(out), At(z), At(labels), U32(batch), U32(classes)];
    machine.launch("cross_entropy", Grid::rows(batch), &args)
}

/// Its gradient.
pub(crate) fn cross_entropy_gradient(
    machine: &impl Machine,
    out: Address,
    [z, labels, g]: [Address; 3],
    [batch, classes]: [u32; 2],
) -> Result<()> {
    let args = [At(out), At(z), At(labels), At(g), U32(batch), U32(classes)];
    machine.launch("cross_entropy_gradient", Grid::rows(batch), &args)
}

/// The gradient to the logits of a loss that an attack ascends.
pub(crate) fn loss_gradient(
    machine: &impl Machine,
    out: Address,
    [z, labels, clean]: [Address; 3],
    loss: Loss,
    [batch, classes]: [u32; 2],
) -> Result<()> {
    let (kind, kappa) = loss.code();
    let args = [
        At(out),
        At(z),
        At(labels),
        At(clean),
        I32(kind),
        F32(kappa),
        U32(batch),
        U32(classes),
    ];
    machine.launch("loss_gradient", Grid::rows(batch), &args)
}
