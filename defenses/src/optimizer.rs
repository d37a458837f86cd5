//! The optimizers that a recipe can name.

use std::collections::BTreeMap;

use attacks::Invalid;
use models::Parameter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::adam::Adam;
use crate::descent::Descent;
use crate::sgd::{Decay, Sgd};

/// The optimizer, with its learning rate before any schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent as in PyTorch: g ← g + decay·θ; b ← momentum·b + g; θ ← θ − rate·b
    /// (Nesterov: θ ← θ − rate·(g + momentum·b)). The first step takes b = g.
    Sgd {
        /// Learning rate.
        rate: f64,
        /// Momentum.
        #[serde(default)]
        momentum: f64,
        /// Nesterov's form of it.
        #[serde(default)]
        nesterov: bool,
        /// Weight decay. Running statistics are never decayed.
        #[serde(default)]
        weight_decay: f64,
        /// What weight decay applies to.
        #[serde(default)]
        decay: Decay,
    },
    /// Adam: Kingma and Ba 2015, arXiv:1412.6980, with PyTorch's defaults.
    Adam {
        /// Learning rate.
        rate: f64,
        /// β₁ and β₂.
        #[serde(default = "default_betas")]
        betas: [f64; 2],
        /// ε in the denominator.
        #[serde(default = "default_adam_epsilon")]
        epsilon: f64,
        /// L2 penalty added to the gradient.
        #[serde(default)]
        weight_decay: f64,
    },
}

impl Optimizer {
    /// Adam with PyTorch's defaults.
    pub fn adam(rate: f64) -> Self {
        Self::Adam {
            rate,
            betas: default_betas(),
            epsilon: default_adam_epsilon(),
            weight_decay: 0.0,
        }
    }
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn default_adam_epsilon() -> f64 {
    1e-8
}

impl Optimizer {
    /// This optimizer for these parameters, at its start.
    pub fn over(&self, parameters: &[Parameter]) -> Box<dyn Descent> {
        match self {
            Self::Sgd {
                momentum,
                nesterov,
                weight_decay,
                decay,
                ..
            } => Box::new(Sgd {
                parameters: parameters.to_vec(),
                momentum: *momentum,
                nesterov: *nesterov,
                weight_decay: *weight_decay,
                decay: *decay,
                buffers: BTreeMap::new(),
            }),
            Self::Adam {
                betas,
                epsilon,
                weight_decay,
                ..
            } => Box::new(Adam {
                parameters: parameters.to_vec(),
                betas: *betas,
                epsilon: *epsilon,
                weight_decay: *weight_decay,
                moments: BTreeMap::new(),
            }),
        }
    }

    /// The learning rate before any schedule.
    pub fn rate(&self) -> f64 {
        match self {
            Self::Sgd { rate, .. } | Self::Adam { rate, .. } => *rate,
        }
    }
}

impl Optimizer {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let within = |field: &str, value: f64, ok: bool, right: &str| {
            if ok {
                Ok(())
            } else {
                Err(Invalid::new(
                    format!("optimizer.{field}"),
                    format!("{field} is {value}; {right}"),
                ))
            }
        };
        let fraction = |value: f64| (0.0..1.0).contains(&value);
        let rate = self.rate();
        within(
            "rate",
            rate,
            rate.is_finite() && rate > 0.0,
            "the learning rate must be above 0",
        )?;
        let (Self::Sgd { weight_decay, .. } | Self::Adam { weight_decay, .. }) = *self;
        within(
            "weight_decay",
            weight_decay,
            weight_decay.is_finite() && weight_decay >= 0.0,
            "it must be at least 0",
        )?;
        match *self {
            Self::Sgd { momentum, nesterov, .. } => {
                within("momentum", momentum, fraction(momentum), "it must be in [0, 1)")?;
                if nesterov && momentum == 0.0 {
                    return Err(Invalid::new("optimizer.nesterov", "Nesterov's form needs momentum"));
                }
            }
            Self::Adam { betas, epsilon, .. } => {
                for beta in betas {
                    within("betas", beta, fraction(beta), "both must be in [0, 1)")?;
                }
                within(
                    "epsilon",
                    epsilon,
                    epsilon.is_finite() && epsilon > 0.0,
                    "it must be above 0",
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
