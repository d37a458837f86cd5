//! Adam: Kingma and Ba 2015, arXiv:1412.6980, with the arithmetic of `torch.optim`.
//!
//! θ parameters, g gradients, both of any shape; rates per step. Parameters without a gradient are left alone, as in
//! PyTorch: neither decayed nor moved.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor};
use models::Parameter;

use crate::descent::{Descent, like, owner};

/// Adam: g ← g + decay · θ; m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; after t steps
/// θ ← θ − rate/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε).
pub struct Adam {
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) betas: [f64; 2],
    pub(crate) epsilon: f64,
    pub(crate) weight_decay: f64,
    pub(crate) moments: BTreeMap<String, Moments>,
}

/// The state of one parameter.
pub(crate) struct Moments {
    /// m.
    first: Tensor,
    /// v.
    second: Tensor,
    /// t.
    steps: u32,
}

impl Descent for Adam {
    fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<()> {
        let [beta1, beta2] = self.betas;
        for Parameter { name, var, .. } in &self.parameters {
            let Some(gradient) = gradients.get(var) else { continue };
            let gradient = decayed(gradient, var, self.weight_decay)?;
            let (fresh1, fresh2) = ((&gradient * (1.0 - beta1))?, (gradient.sqr()? * (1.0 - beta2))?);
            let moments = match self.moments.remove(name) {
                Some(Moments { first, second, steps }) => Moments {
                    first: ((first * beta1)? + fresh1)?,
                    second: ((second * beta2)? + fresh2)?,
                    steps: steps + 1,
                },
                None => Moments {
                    first: fresh1,
                    second: fresh2,
                    steps: 1,
                },
            };
            let unbias = |beta: f64| 1.0 - beta.powf(f64::from(moments.steps));
            let scale = ((moments.second.sqrt()? / unbias(beta2).sqrt())? + self.epsilon)?;
            let change = ((&moments.first / scale)? * (rate / unbias(beta1)))?;
            var.set(&(var.as_detached_tensor() - change)?)?;
            self.moments.insert(name.clone(), moments);
        }
        Ok(())
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        for (name, moments) in &self.moments {
            state.insert(format!("first/{name}"), moments.first.clone());
            state.insert(format!("second/{name}"), moments.second.clone());
            let steps = Tensor::new(moments.steps, &Device::Cpu).expect("one number on the CPU");
            state.insert(format!("steps/{name}"), steps);
        }
        state
    }

    fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut moments = BTreeMap::new();
        for (key, tensor) in state {
            let (name, parameter) = owner(&self.parameters, key, &["first", "second", "steps"])?;
            let part = |kind: &str| match state.get(&format!("{kind}/{name}")) {
                Some(tensor) => Ok(tensor),
                None => candle_core::bail!("the optimizer's state has {key} but not {kind}/{name}"),
            };
            if key.starts_with("first/") {
                let second = part("second")?;
                let steps = part("steps")?.to_dtype(DType::U32)?.flatten_all()?.to_vec1::<u32>()?;
                let [steps] = steps[..] else {
                    candle_core::bail!("the optimizer's state steps/{name} is not one number");
                };
                let first = like(key, tensor, parameter)?;
                let second = like(&format!("second/{name}"), second, parameter)?;
                moments.insert(name, Moments { first, second, steps });
            } else {
                part("first")?;
            }
        }
        self.moments = moments;
        Ok(())
    }
}

/// g + decay · θ, detached.
fn decayed(gradient: &Tensor, parameter: &Tensor, decay: f64) -> Result<Tensor> {
    let gradient = gradient.detach();
    if decay == 0.0 {
        Ok(gradient)
    } else {
        gradient + (parameter.detach() * decay)?
    }
}
