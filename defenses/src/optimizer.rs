//! Gradient descent with momentum, and Adam, with the arithmetic of `torch.optim`.
//!
//! θ parameters, g gradients, both of any shape; rates per step. Parameters without a gradient are left
//! alone, as in PyTorch: neither decayed nor moved. Nothing here leaves a graph behind.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor};
use kernels::{SgdStep, sgd_step};
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, tensor};
    use candle_core::Var;

    fn parameter(name: &str, values: &[f64], role: Role) -> Parameter {
        let var = Var::from_tensor(&tensor(values, &[values.len()])).unwrap();
        Parameter {
            name: name.to_string(),
            var,
            role,
        }
    }

    /// Gradients θ² of every parameter: those of Σ θ³/3.
    fn gradients(parameters: &[Parameter]) -> GradStore {
        let cubes = parameters
            .iter()
            .map(|parameter| parameter.var.powf(3.0).unwrap().sum_all().unwrap());
        let total = cubes.reduce(|a, b| (a + b).unwrap()).unwrap();
        (total / 3.0).unwrap().backward().unwrap()
    }

    fn sgd(momentum: f64, nesterov: bool, weight_decay: f64, decay: Decay) -> Optimizer {
        Optimizer::Sgd {
            rate: 0.1,
            momentum,
            nesterov,
            weight_decay,
            decay,
        }
    }

    /// Three steps from θ = 0.8 against the textbook loop over one number.
    #[track_caller]
    fn check(optimizer: &Optimizer, mut textbook: impl FnMut(f64, f64) -> f64) {
        let parameters = [parameter("w", &[0.8], Role::Weight)];
        let mut descent = optimizer.over(&parameters);
        let mut theta: f64 = 0.8;
        for rate in [0.1, 0.1, 0.05] {
            descent.step(&gradients(&parameters), rate).unwrap();
            theta -= rate * textbook(theta * theta, theta);
        }
        assert_near("theta", &parameters[0].var, &tensor(&[theta], &[1]), 1e-12);
    }

    #[test]
    fn sgd_is_that_of_torch() {
        check(&sgd(0.0, false, 0.0, Decay::All), |g, _| g);
        check(&sgd(0.0, false, 0.3, Decay::All), |g, theta| g + 0.3 * theta);
        let mut buffer = None;
        check(&sgd(0.9, false, 0.3, Decay::All), |g, theta| {
            let g = g + 0.3 * theta;
            *buffer.insert(buffer.map_or(g, |buffer: f64| 0.9 * buffer + g))
        });
        let mut buffer = None;
        check(&sgd(0.9, true, 0.0, Decay::All), |g, _| {
            g + 0.9 * *buffer.insert(buffer.map_or(g, |buffer: f64| 0.9 * buffer + g))
        });
    }

    #[test]
    fn adam_is_that_of_torch() {
        let optimizer = Optimizer::Adam {
            rate: 0.1,
            betas: [0.9, 0.99],
            epsilon: 1e-3,
            weight_decay: 0.2,
        };
        let (mut m, mut v, mut t) = (0.0, 0.0, 0);
        check(&optimizer, |g, theta| {
            let g = g + 0.2 * theta;
            t += 1;
            m = 0.9 * m + 0.1 * g;
            v = 0.99 * v + 0.01 * g * g;
            let (m, v) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.99f64.powi(t)));
            m / (v.sqrt() + 1e-3)
        });
    }

    #[test]
    fn decay_may_spare_biases_and_batch_norm() {
        let roles = [("w", Role::Weight), ("b", Role::Bias), ("n", Role::BatchNorm)];
        let after = |decay| {
            let parameters = roles.map(|(name, role)| parameter(name, &[2.0], role));
            sgd(0.0, false, 0.5, decay)
                .over(&parameters)
                .step(&gradients(&parameters), 0.1)
                .unwrap();
            parameters.map(|parameter| parameter.var.to_vec1::<f64>().unwrap()[0])
        };
        assert_eq!(after(Decay::All), [1.5, 1.5, 1.5]);
        assert_eq!(after(Decay::Weights), [1.5, 1.6, 1.6]);
    }

    #[test]
    fn parameters_without_gradient_are_left_alone() {
        let used = [parameter("used", &[1.0], Role::Weight)];
        let all = [used[0].clone(), parameter("unused", &[1.0], Role::Weight)];
        for optimizer in [sgd(0.9, false, 0.1, Decay::All), Optimizer::adam(0.1)] {
            let mut descent = optimizer.over(&all);
            descent.step(&gradients(&used), 0.1).unwrap();
            assert_eq!(all[1].var.to_vec1::<f64>().unwrap(), [1.0]);
            assert!(descent.state().keys().all(|key| !key.ends_with("unused")));
        }
    }

    #[test]
    fn a_restored_optimizer_goes_on_as_if_nothing_had_happened() {
        for optimizer in [sgd(0.9, true, 0.1, Decay::All), Optimizer::adam(0.1)] {
            let parameters = [
                parameter("a", &[0.8, -0.3], Role::Weight),
                parameter("b", &[0.5], Role::Bias),
            ];
            let mut descent = optimizer.over(&parameters);
            descent.step(&gradients(&parameters), 0.1).unwrap();
            let copies = parameters
                .clone()
                .map(|it| parameter(&it.name, &reference::doubles(&it.var), it.role));
            let mut restored = optimizer.over(&copies);
            restored.restore(&descent.state()).unwrap();
            for _ in 0..2 {
                descent.step(&gradients(&parameters), 0.1).unwrap();
                restored.step(&gradients(&copies), 0.1).unwrap();
            }
            for (one, other) in parameters.iter().zip(&copies) {
                assert_eq!(reference::doubles(&one.var), reference::doubles(&other.var));
            }
        }
    }

    #[test]
    fn a_state_that_does_not_fit_is_refused_by_name() {
        let parameters = [parameter("a", &[0.8, -0.3], Role::Weight)];
        let check = |optimizer: &Optimizer, key: &str, length: usize, expected: &str| {
            let state = [(key.to_string(), tensor(&vec![0.0; length], &[length]))].into();
            let error = optimizer.over(&parameters).restore(&state).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let (sgd, adam) = (sgd(0.9, false, 0.0, Decay::All), Optimizer::adam(0.1));
        check(&sgd, "momentum/b", 2, "momentum/b");
        check(&sgd, "momentum/a", 3, "shape");
        check(&sgd, "first/a", 2, "first/a");
        check(&adam, "first/a", 2, "second/a");
        check(&adam, "second/a", 2, "first/a");
    }

    #[test]
    fn long_gradients_are_shortened_together() {
        let parameters = [
            parameter("a", &[3f64.sqrt()], Role::Weight),
            parameter("b", &[2.0], Role::Bias),
        ];
        let mut store = gradients(&parameters); // 3 and 4
        assert!((clip_gradients(&parameters, &mut store, 10.0).unwrap() - 5.0).abs() < 1e-12);
        assert_near(
            "short",
            store.get(&parameters[1].var).unwrap(),
            &tensor(&[4.0], &[1]),
            1e-12,
        );
        clip_gradients(&parameters, &mut store, 1.0).unwrap();
        assert_near(
            "long",
            store.get(&parameters[1].var).unwrap(),
            &tensor(&[0.8], &[1]),
            1e-6,
        );
        assert_near(
            "long",
            store.get(&parameters[0].var).unwrap(),
            &tensor(&[0.6], &[1]),
            1e-6,
        );
    }
}
