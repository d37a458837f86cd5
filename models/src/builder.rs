//! Makes a network's parameters, in order, under their authors' names.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use random::{Purpose, Stream};

use crate::layers::{BatchNorm, Convolution, Linear};
use crate::parameter::{Parameter, Role, State};

/// How a layer's parameters are initialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// Uniform on ±1/√fan_in, weights and biases: PyTorch's default.
    PyTorch,
    /// Weights as in PyTorch, biases zero.
    PyTorchNoBias,
    /// Normal with variance 2/fan_in, biases zero: He et al. 2015, arXiv:1502.01852.
    Kaiming,
    /// Normal with variance 2/fan_out, biases zero: wide residual networks.
    KaimingFanOut,
    /// All zero.
    Zero,
}

/// Makes layers and keeps their parameters and running statistics, in the order in which they are made. Names are
/// those of the state dictionary: with `conv1`, a convolution's weight is `conv1.weight`.
pub struct Builder {
    stream: Stream,
    dtype: DType,
    device: Device,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) state: Vec<(String, State)>,
}

impl Builder {
    pub(crate) fn new(random: &Stream, dtype: DType, device: &Device) -> Self {
        Self {
            stream: random.of(Purpose::Initialisation),
            dtype,
            device: device.clone(),
            parameters: Vec::new(),
            state: Vec::new(),
        }
    }

    /// A square convolution without bias.
    pub fn convolution(
        &mut self,
        name: &str,
        [outputs, inputs, kernel]: [usize; 3],
        stride: usize,
        padding: usize,
        init: Init,
    ) -> Result<Convolution> {
        let shape = [outputs, inputs, kernel, kernel];
        Ok(Convolution {
            weight: self.parameter_of(format!("{name}.weight"), Role::Weight, &shape, &shape, init)?,
            bias: None,
            stride,
            padding,
        })
    }

    /// A square convolution with stride 1 and a bias.
    pub fn convolution_with_bias(
        &mut self,
        name: &str,
        [outputs, inputs, kernel]: [usize; 3],
        padding: usize,
        init: Init,
    ) -> Result<Convolution> {
        let weights = [outputs, inputs, kernel, kernel];
        let mut convolution = self.convolution(name, [outputs, inputs, kernel], 1, padding, init)?;
        convolution.bias = Some(self.parameter_of(format!("{name}.bias"), Role::Bias, &[outputs], &weights, init)?);
        Ok(convolution)
    }

    /// A fully connected layer with a bias.
    pub fn linear(&mut self, name: &str, [outputs, inputs]: [usize; 2], init: Init) -> Result<Linear> {
        let weights = [outputs, inputs];
        Ok(Linear {
            weight: self.parameter_of(format!("{name}.weight"), Role::Weight, &weights, &weights, init)?,
            bias: self.parameter_of(format!("{name}.bias"), Role::Bias, &[outputs], &weights, init)?,
        })
    }

    /// A batch normalisation of images with this many channels.
    pub fn batch_norm(&mut self, name: &str, channels: usize) -> Result<BatchNorm> {
        let ones = Tensor::ones(channels, self.dtype, &self.device)?;
        let zeros = Tensor::zeros(channels, self.dtype, &self.device)?;
        let norm = BatchNorm {
            weight: Var::from_tensor(&ones)?,
            bias: Var::from_tensor(&zeros)?,
            running_mean: Var::from_tensor(&zeros)?,
            running_var: Var::from_tensor(&ones)?,
            updates: Arc::default(),
        };
        self.push(format!("{name}.weight"), Role::BatchNorm, &norm.weight);
        self.push(format!("{name}.bias"), Role::BatchNorm, &norm.bias);
        for (what, state) in [
            ("running_mean", State::Statistic(norm.running_mean.clone())),
            ("running_var", State::Statistic(norm.running_var.clone())),
            ("num_batches_tracked", State::Updates(norm.updates.clone())),
        ] {
            self.state.push((format!("{name}.{what}"), state));
        }
        Ok(norm)
    }

    /// A parameter for operations of your own, treated as `role` by optimizers. Its first dimension counts as outputs,
    /// the others as inputs.
    pub fn parameter(&mut self, name: &str, role: Role, shape: &[usize], init: Init) -> Result<Var> {
        self.parameter_of(name.to_string(), role, shape, shape, init)
    }

    /// A parameter of a layer with `weights` of a shape.
    fn parameter_of(
        &mut self,
        name: String,
        role: Role,
        shape: &[usize],
        weights: &[usize],
        init: Init,
    ) -> Result<Var> {
        let len = shape.iter().product();
        let fan_in: usize = weights[1..].iter().product();
        let fan_out = weights[0] * weights.iter().skip(2).product::<usize>();
        let index = [self.parameters.len() as u64];
        let uniform = |bound: f64| -> Vec<f64> {
            let draws = self.stream.uniform(&index, len);
            draws.iter().map(|&u| (2.0 * f64::from(u) - 1.0) * bound).collect()
        };
        let normal = |variance: f64| -> Vec<f64> {
            let draws = self.stream.normal(&index, len);
            draws.iter().map(|&z| f64::from(z) * variance.sqrt()).collect()
        };
        let values = match (init, role) {
            (Init::PyTorch, _) | (Init::PyTorchNoBias, Role::Weight) => uniform(1.0 / (fan_in as f64).sqrt()),
            (Init::Kaiming, Role::Weight) => normal(2.0 / fan_in as f64),
            (Init::KaimingFanOut, Role::Weight) => normal(2.0 / fan_out as f64),
            _ => vec![0.0; len],
        };
        // Rounded here, so that the numbers are the same on every device.
        let values = Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype)?;
        let var = Var::from_tensor(&values.to_device(&self.device)?)?;
        self.push(name, role, &var);
        Ok(var)
    }

    fn push(&mut self, name: String, role: Role, var: &Var) {
        self.state.push((name.clone(), State::Parameter(self.parameters.len())));
        self.parameters.push(Parameter {
            name,
            var: var.clone(),
            role,
        });
    }
}
