//! The step of an attack on a frozen network.

use candle_core::Result;

use super::program::Program;
use super::regions::Bases;
use crate::ascent::Loss;
use crate::cuda::arena::Arena;
use crate::cuda::machine::{self, Address, Machine};

/// What an attack step reads besides the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AttackStep {
    pub(crate) labels: Address,
    pub(crate) clean: Address,
    pub(crate) lower: Address,
    pub(crate) upper: Address,
    pub(crate) stalled: Address,
    pub(crate) loss: Loss,
    pub(crate) length: f32,
}

impl Program {
    /// One step of an attack, in place.
    pub(crate) fn attack_step(&self, machine: &impl Machine, bases: &Bases, step: &AttackStep) -> Result<()> {
        let rows = [self.batch, self.classes];
        let n = self.batch * self.image_len;
        self.forward(machine, bases)?;
        let logits = [bases.logits, step.labels, step.clean];
        machine::loss_gradient(machine, bases.logit_gradient, logits, step.loss, rows)?;
        self.backward(machine, bases)?;
        machine::flag_zero(machine, step.stalled, bases.image_gradient, self.batch, self.image_len)?;
        let operands = [bases.images, bases.image_gradient, step.lower, step.upper];
        machine::sign_step(machine, bases.images, operands, step.length, n)
    }
}

/// Bytes that the images, gradients and bounds of an attack take, and where each of them is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Staging {
    pub(crate) images: u64,
    pub(crate) image_gradient: u64,
    pub(crate) lower: u64,
    pub(crate) upper: u64,
    pub(crate) logits: u64,
    pub(crate) logit_gradient: u64,
    pub(crate) clean: u64,
    pub(crate) labels: u64,
    pub(crate) stalled: u64,
    pub(crate) bytes: u64,
}

impl Staging {
    pub(crate) fn new(program: &Program) -> Self {
        let mut arena = Arena::default();
        let mut take = |numbers: u32| arena.take(numbers as usize * 4).start;
        let (images, logits) = (program.batch * program.image_len, program.batch * program.classes);
        let staging = Self {
            images: take(images),
            image_gradient: take(images),
            lower: take(images),
            upper: take(images),
            logits: take(logits),
            logit_gradient: take(logits),
            clean: take(logits),
            labels: take(program.batch),
            stalled: take(program.batch),
            bytes: 0,
        };
        Self {
            bytes: arena.end(),
            ..staging
        }
    }
}
