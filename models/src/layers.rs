//! Layers that hold their parameters.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use candle_core::{Result, Tensor, Var};
use kernels::{Activation, Layers, Statistics, Value};

use crate::{Dropout, Mode};

/// What one forward pass carries from layer to layer.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    pub(crate) mode: Mode<'a>,
    pub(crate) parameters: Parameters,
    /// Counts multiplications, if given.
    pub(crate) multiplications: Option<&'a Cell<u64>>,
}

/// Whether gradients flow to the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parameters {
    Tracked,
    Constant,
}

impl Pass<'_> {
    /// What batch norm and dropout do in this pass.
    pub fn mode(&self) -> Mode<'_> {
        self.mode
    }

    /// A parameter's values, for operations of your own. Gradients flow to it in training and nowhere else.
    pub fn parameter(&self, var: &Var) -> Tensor {
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

/// A square convolution, with the same padding on all sides.
#[derive(Debug)]
pub struct Convolution {
    pub(crate) weight: Var,
    pub(crate) bias: Option<Var>,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Convolution {
    /// `[B, C, H, W]` to `[B, C′, H′, W′]`.
    pub fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward_then(images, Activation::None, pass)
    }

    /// The same, then ReLU.
    pub fn forward_relu(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
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
    pub fn describe(
        &self,
        make: &mut dyn Layers,
        input: Value,
        norm: Option<&BatchNorm>,
        residual: Option<Value>,
        activation: Activation,
    ) -> Result<Value> {
        let bias = self.bias.as_ref().map(|bias| bias.as_tensor());
        let shape = (self.stride, self.padding);
        let norm = norm.map(|norm| norm.as_norm());
        make.convolution(input, &self.weight, bias, shape, norm.as_ref(), residual, activation)
    }
}

/// A fully connected layer.
#[derive(Debug)]
pub struct Linear {
    pub(crate) weight: Var,
    pub(crate) bias: Var,
}

impl Linear {
    /// `[B, N]` to `[B, N′]`.
    pub fn forward(&self, inputs: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward_then(inputs, Activation::None, pass)
    }

    /// The same, then ReLU.
    pub fn forward_relu(&self, inputs: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward_then(inputs, Activation::Relu, pass)
    }

    fn forward_then(&self, inputs: &Tensor, activation: Activation, pass: &Pass<'_>) -> Result<Tensor> {
        let out = kernels::linear(inputs, &pass.parameter(&self.weight), None)?;
        pass.count(&out, self.weight.dim(1)?);
        kernels::add_bias(&out, &pass.parameter(&self.bias), activation)
    }
}

impl Linear {
    /// This layer, then the activation.
    pub fn describe(&self, make: &mut dyn Layers, input: Value, activation: Activation) -> Result<Value> {
        make.linear(input, &self.weight, Some(&self.bias), activation)
    }
}

/// A batch normalisation over the channels of images, with PyTorch's momentum 0.1 and ε = 1e-5.
#[derive(Debug)]
pub struct BatchNorm {
    pub(crate) weight: Var,
    pub(crate) bias: Var,
    pub(crate) running_mean: Var,
    pub(crate) running_var: Var,
    /// `num_batches_tracked`: how often the running statistics were updated.
    pub(crate) updates: Arc<AtomicI64>,
}

impl BatchNorm {
    /// `[B, C, H, W]` to the same shape, with the statistics that the pass's mode asks for.
    pub fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward_then(images, Activation::None, pass)
    }

    /// The same, then ReLU.
    pub fn forward_relu(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward_then(images, Activation::Relu, pass)
    }

    fn forward_then(&self, images: &Tensor, activation: Activation, pass: &Pass<'_>) -> Result<Tensor> {
        let norm = self.norm(pass.parameter(&self.weight), pass.parameter(&self.bias));
        let statistics = match pass.mode {
            Mode::Eval => Statistics::Running,
            Mode::BatchStatistics => Statistics::Batch,
            Mode::Train(_) => Statistics::BatchAndUpdate,
        };
        kernels::batch_norm(images, &norm, statistics, activation)
    }

    /// This layer as `kernels` has it.
    pub fn as_norm(&self) -> kernels::BatchNorm {
        self.norm(self.weight.as_tensor().clone(), self.bias.as_tensor().clone())
    }

    fn norm(&self, weight: Tensor, bias: Tensor) -> kernels::BatchNorm {
        kernels::BatchNorm {
            weight,
            bias,
            running_mean: self.running_mean.clone(),
            running_var: self.running_var.clone(),
            epsilon: 1e-5,
            momentum: 0.1,
            updates: self.updates.clone(),
        }
    }
}

/// The factors of a dropout layer, `width` for each example: zero with probability one half, else two.
/// `layer` keeps several dropout layers of one network apart.
pub(crate) fn dropout_factors(dropout: &Dropout<'_>, layer: u64, width: usize) -> Vec<f32> {
    let draws = dropout.random.at(layer).uniform(dropout.ids, width);
    draws.iter().map(|&u| if u < 0.5 { 0.0 } else { 2.0 }).collect()
}

/// Dropout with probability ½ of features `[B, N]`, where the pass has draws for it. `layer` keeps several dropout layers
/// of one network apart.
pub fn dropout_half(features: &Tensor, pass: &Pass<'_>, layer: u64) -> Result<Tensor> {
    let Mode::Train(Some(dropout)) = pass.mode else {
        return Ok(features.clone());
    };
    let (batch, width) = features.dims2()?;
    if dropout.ids.len() != batch {
        candle_core::bail!("dropout: {} ids for features {:?}", dropout.ids.len(), features.dims());
    }
    let mask = dropout_factors(&dropout, layer, width);
    let mask = Tensor::from_vec(mask, (batch, width), features.device())?;
    features * mask.to_dtype(features.dtype())?
}

/// The mean of every channel: `[B, C, H, W]` to `[B, C]`.
pub fn mean_per_channel(images: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = images.dims4()?;
    if height != width {
        return images.flatten_from(2)?.mean(2);
    }
    kernels::avg_pool2d(images, height)?.flatten_from(1)
}
