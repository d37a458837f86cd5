//! Gradient descent with momentum, and Adam, with the arithmetic of `torch.optim`.
//!
//! θ parameters, g gradients, both of any shape; rates per step. Parameters without a gradient are left
//! alone, as in PyTorch: neither decayed nor moved. Nothing here leaves a graph behind.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor};
use models::{Parameter, Role};

use crate::{Decay, Optimizer};

/// An optimizer at work on the parameters of one network.
pub trait Descent: Send {
    /// Moves every parameter that has a gradient, at this learning rate.
    fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<()>;

    /// What the optimizer remembers, for a checkpoint.
    fn state(&self) -> BTreeMap<String, Tensor>;

    /// Takes up where a [`state`](Self::state) left off. An error names the entry that does not fit.
    fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()>;
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

/// Stochastic gradient descent: g ← g + decay · θ; b ← momentum · b + g, at first b = g; θ ← θ − rate · b, or with
/// Nesterov's momentum θ ← θ − rate · (g + momentum · b).
pub struct Sgd {
    parameters: Vec<Parameter>,
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
    decay: Decay,
    /// b by parameter.
    buffers: BTreeMap<String, Tensor>,
}

impl Descent for Sgd {
    fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<()> {
        for Parameter { name, var, role } in &self.parameters {
            let Some(gradient) = gradients.get(var) else { continue };
            let decays = self.decay == Decay::All || *role == Role::Weight;
            let gradient = decayed(gradient, var, if decays { self.weight_decay } else { 0.0 })?;
            let direction = if self.momentum == 0.0 {
                gradient
            } else {
                let buffer = match self.buffers.get(name) {
                    Some(buffer) => ((buffer * self.momentum)? + &gradient)?,
                    None => gradient.copy()?,
                };
                self.buffers.insert(name.clone(), buffer.clone());
                if self.nesterov {
                    (gradient + (buffer * self.momentum)?)?
                } else {
                    buffer
                }
            };
            var.set(&(var.as_detached_tensor() - (direction * rate)?)?)?;
        }
        Ok(())
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        let entry = |(name, buffer): (&String, &Tensor)| (format!("momentum/{name}"), buffer.clone());
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

/// Adam: g ← g + decay · θ; m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; after t steps
/// θ ← θ − rate/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε).
pub struct Adam {
    parameters: Vec<Parameter>,
    betas: [f64; 2],
    epsilon: f64,
    weight_decay: f64,
    moments: BTreeMap<String, Moments>,
}

/// What Adam remembers of one parameter.
struct Moments {
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

/// Scales the gradients of `parameters` so that their Euclidean norm, taken together, is at most `largest`, and
/// returns the norm before. As `torch.nn.utils.clip_grad_norm_`, but the squares are summed in double precision,
/// in the order of the parameters.
pub fn clip_gradients(parameters: &[Parameter], gradients: &mut GradStore, largest: f64) -> Result<f64> {
    let mut sum = 0.0;
    for parameter in parameters {
        if let Some(gradient) = gradients.get(&parameter.var) {
            sum += gradient.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
        }
    }
    let norm = sum.sqrt();
    let scale = largest / (norm + 1e-6);
    if scale < 1.0 {
        for parameter in parameters {
            if let Some(gradient) = gradients.remove(&parameter.var) {
                gradients.insert(&parameter.var, (gradient * scale)?);
            }
        }
    }
    Ok(norm)
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

/// The parameter that `KIND/NAME` speaks of, if KIND is one of `kinds`.
fn owner<'a>(parameters: &'a [Parameter], key: &str, kinds: &[&str]) -> Result<(String, &'a Parameter)> {
    let split = key.split_once('/').filter(|(kind, _)| kinds.contains(kind));
    let found = split.and_then(|(_, name)| parameters.iter().find(|parameter| parameter.name == name));
    match found {
        Some(parameter) => Ok((parameter.name.clone(), parameter)),
        None => candle_core::bail!("the optimizer has no use for `{key}` in its state"),
    }
}

/// A stored tensor, if it has the parameter's shape, in its precision and place.
fn like(key: &str, tensor: &Tensor, parameter: &Parameter) -> Result<Tensor> {
    if tensor.dims() != parameter.var.dims() {
        let (found, wanted) = (tensor.dims(), parameter.var.dims());
        candle_core::bail!("the optimizer's state {key} has shape {found:?}, the parameter {wanted:?}");
    }
    tensor
        .to_dtype(parameter.var.dtype())?
        .to_device(parameter.var.device())?
        .copy()
}
