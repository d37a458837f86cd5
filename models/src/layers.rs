//! Layers that hold their parameters.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use candle_core::{Result, Tensor, Var};
use kernels::frozen::{Builder, Value};
use kernels::{Activation, Statistics};

use crate::Mode;

/// What one forward pass carries from layer to layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) mode: Mode<'a>,
    pub(crate) parameters: Parameters,
    /// Counts multiplications, if somebody asks.
    pub(crate) multiplications: Option<&'a Cell<u64>>,
}

/// Whether gradients flow to the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parameters {
    Tracked,
    Constant,
}

impl Pass<'_> {
    fn parameter(&self, var: &Var) -> Tensor {
        match self.parameters {
            Parameters::Tracked => var.as_tensor().clone(),
            Parameters::Constant => var.as_tensor().detach(),
        }
    }

    fn count(&self, out: &Tensor, per_number: usize) {
        if let Some(count) = self.multiplications {
            count.set(count.get() + (out.elem_count() * per_number) as u64);
        }
    }
}

/// A convolution.
#[derive(Debug)]
pub(crate) struct Convolution {
    pub(crate) weight: Var,
    pub(crate) bias: Option<Var>,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Convolution {
    pub(crate) fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward_then(images, Activation::None, pass)
    }

    pub(crate) fn forward_relu(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward_then(images, Activation::Relu, pass)
    }

    fn forward_then(&self, images: &Tensor, activation: Activation, pass: &Pass<'_>) -> Result<Tensor> {
        let (weight, stride, padding) = (pass.parameter(&self.weight), self.stride, self.padding);
        let out = match &self.bias {
            Some(bias) => {
                kernels::conv2d_with_bias(images, &weight, &pass.parameter(bias), stride, padding, activation)?
            }
            None => kernels::conv2d(images, &weight, stride, padding)?,
        };
        let (_, inputs, height, width) = self.weight.dims4()?;
        pass.count(&out, inputs * height * width);
        match (&self.bias, activation) {
            (None, Activation::Relu) => kernels::relu(&out),
            _ => Ok(out),
        }
    }
}

impl Convolution {
    /// This layer, then as far as they are there: `norm`, sum with `residual`, activation.
    pub(crate) fn freeze(
        &self,
        make: &mut Builder,
        input: Value,
        norm: Option<&BatchNorm>,
        residual: Option<Value>,
        activation: Activation,
    ) -> Result<Value> {
        let bias = self.bias.as_ref().map(|bias| bias.as_tensor());
        let shape = (self.stride, self.padding);
        let norm = norm.map(|norm| norm.constant());
        make.convolution(input, &self.weight, bias, shape, norm.as_ref(), residual, activation)
    }
}

/// A fully connected layer.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Var,
    pub(crate) bias: Var,
}

impl Linear {
    pub(crate) fn forward(&self, inputs: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward_then(inputs, Activation::None, pass)
    }

    pub(crate) fn forward_relu(&self, inputs: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward_then(inputs, Activation::Relu, pass)
    }

    fn forward_then(&self, inputs: &Tensor, activation: Activation, pass: &Pass<'_>) -> Result<Tensor> {
        let out = kernels::linear(inputs, &pass.parameter(&self.weight), None)?;
        pass.count(&out, self.weight.dim(1)?);
        kernels::add_bias(&out, &pass.parameter(&self.bias), activation)
    }
}

impl Linear {
    pub(crate) fn freeze(&self, make: &mut Builder, input: Value, activation: Activation) -> Result<Value> {
        make.linear(input, &self.weight, Some(&self.bias), activation)
    }
}

/// A batch normalisation.
#[derive(Debug)]
pub(crate) struct BatchNorm {
    pub(crate) weight: Var,
    pub(crate) bias: Var,
    pub(crate) running_mean: Var,
    pub(crate) running_var: Var,
    /// `num_batches_tracked`: how often the running statistics were updated.
    pub(crate) updates: Arc<AtomicI64>,
}

impl BatchNorm {
    pub(crate) fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward_then(images, Activation::None, pass)
    }

    pub(crate) fn forward_relu(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward_then(images, Activation::Relu, pass)
    }

    fn forward_then(&self, images: &Tensor, activation: Activation, pass: &Pass<'_>) -> Result<Tensor> {
        let norm = self.norm(pass.parameter(&self.weight), pass.parameter(&self.bias));
        let statistics = match pass.mode {
            Mode::Eval => Statistics::Running,
            Mode::BatchStatistics => Statistics::Batch,
            Mode::Train(_) => Statistics::BatchAndUpdate,
        };
        let out = kernels::batch_norm(images, &norm, statistics, activation)?;
        if statistics == Statistics::BatchAndUpdate {
            self.updates.fetch_add(1, Ordering::Relaxed);
        }
        Ok(out)
    }

    /// This layer with parameters that are not tracked.
    pub(crate) fn constant(&self) -> kernels::BatchNorm {
        self.norm(self.weight.detach(), self.bias.detach())
    }

    fn norm(&self, weight: Tensor, bias: Tensor) -> kernels::BatchNorm {
        kernels::BatchNorm {
            weight,
            bias,
            running_mean: self.running_mean.clone(),
            running_var: self.running_var.clone(),
            epsilon: 1e-5,
            momentum: 0.1,
        }
    }
}

/// Sets each feature to zero with probability one half and doubles the rest, where the pass has draws
/// for it. `layer` keeps several dropout layers of one network apart.
pub(crate) fn dropout_half(features: &Tensor, pass: &Pass<'_>, layer: u64) -> Result<Tensor> {
    let Mode::Train(Some(dropout)) = pass.mode else {
        return Ok(features.clone());
    };
    let (batch, width) = features.dims2()?;
    if dropout.ids.len() != batch {
        candle_core::bail!("dropout: {} ids for features {:?}", dropout.ids.len(), features.dims());
    }
    let draws = dropout.random.at(layer).uniform(dropout.ids, width);
    let mask: Vec<f32> = draws.iter().map(|&u| if u < 0.5 { 0.0 } else { 2.0 }).collect();
    let mask = Tensor::from_vec(mask, (batch, width), features.device())?;
    features * mask.to_dtype(features.dtype())?
}

/// The mean of every channel: `[B, C, H, W]` to `[B, C]`.
pub(crate) fn mean_per_channel(images: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = images.dims4()?;
    if height != width {
        return images.flatten_from(2)?.mean(2);
    }
    kernels::avg_pool2d(images, height)?.flatten_from(1)
}
