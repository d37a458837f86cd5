//! Gradient descent with momentum, with the arithmetic of `torch.optim`.
//!
//! θ parameters, g gradients, both of any shape; rates per step. Parameters without a gradient are left alone, as in
//! PyTorch: neither decayed nor moved.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};
use kernels::{SgdStep, sgd_step};
use models::{Parameter, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::descent::{Descent, like, owner};

/// What weight decay applies to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Every parameter, as `torch.optim` does.
    #[default]
    All,
    /// Convolution and linear weights only: neither batch norm nor biases.
    Weights,
}

/// Stochastic gradient descent: g ← g + decay · θ; b ← momentum · b + g, at first b = g; θ ← θ − rate · b, or with
/// Nesterov's momentum θ ← θ − rate · (g + momentum · b).
pub struct Sgd {
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) momentum: f64,
    pub(crate) nesterov: bool,
    pub(crate) weight_decay: f64,
    pub(crate) decay: Decay,
    /// b by parameter.
    pub(crate) buffers: BTreeMap<String, Tensor>,
}

impl Descent for Sgd {
    fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<()> {
        for Parameter { name, var, role } in &self.parameters {
            let Some(gradient) = gradients.get(var) else { continue };
            let decays = self.decay == Decay::All || *role == Role::Weight;
            let decay = if decays { self.weight_decay } else { 0.0 };
            let first = self.momentum != 0.0 && !self.buffers.contains_key(name);
            if first {
                self.buffers.insert(name.clone(), var.zeros_like()?);
            }
            let step = SgdStep {
                rate,
                momentum: self.momentum,
                decay,
                nesterov: self.nesterov,
                first,
            };
            sgd_step(var, self.buffers.get(name), gradient, &step)?;
        }
        Ok(())
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        // Copies: the next step changes the buffers in place.
        let copy = |buffer: &Tensor| buffer.copy().expect("a copy in memory");
        let entry = |(name, buffer): (&String, &Tensor)| (format!("momentum/{name}"), copy(buffer));
        self.buffers.iter().map(entry).collect()
    }

    fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut buffers = BTreeMap::new();
        for (key, tensor) in state {
            let (name, parameter) = owner(&self.parameters, key, &["momentum"])?;
            buffers.insert(name, like(key, tensor, parameter)?);
        }
        self.buffers = buffers;
        Ok(())
    }
}
