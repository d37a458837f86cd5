//! A network as it was recorded.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use candle_core::{Result, Tensor, Var, bail};

use super::layers::{Layers, Value};
use super::structure::{Convolution, Graph, Layer, Norm, Parameter};
use crate::activation::Activation;
use crate::batch_norm::BatchNorm;
use crate::convolution::Geometry;
use crate::max_pool::check_window;

/// A network, recorded layer by layer; the last value is its logits.
#[derive(Debug, Clone)]
pub struct Recording {
    pub(crate) graph: Graph,
    /// By number.
    pub(crate) parameters: Vec<Tensor>,
    /// The running statistics of every batch normalisation.
    pub(crate) running: Vec<Running>,
}

/// The running statistics of a batch normalisation.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) mean: Var,
    pub(crate) variance: Var,
    /// How often they moved.
    pub(crate) updates: Arc<AtomicI64>,
}

impl Recording {
    /// Starts with images of [channels, height, width].
    pub fn new(image: [usize; 3]) -> (Self, Value) {
        let recording = Self {
            graph: Graph::new(image),
            parameters: Vec::new(),
            running: Vec::new(),
        };
        (recording, Value(0))
    }

    /// The network in evaluation mode: without dropout, and with constant parameters.
    pub(crate) fn at_rest(&self) -> Self {
        Self {
            graph: self.graph.without_dropout(),
            parameters: self.parameters.iter().map(Tensor::detach).collect(),
            running: self.running.clone(),
        }
    }

    fn parameter(&mut self, tensor: &Tensor) -> Parameter {
        self.graph.parameters.push(tensor.elem_count());
        self.parameters.push(tensor.clone());
        self.parameters.len() - 1
    }

    fn norm(&mut self, norm: &BatchNorm, channels: usize) -> Result<Norm> {
        let [mean, variance] = [&norm.running_mean, &norm.running_var].map(Var::as_tensor);
        for tensor in [&norm.weight, &norm.bias, mean, variance] {
            if tensor.dims() != [channels] {
                bail!(
                    "a batch normalisation {:?} does not fit {channels} channels",
                    tensor.dims()
                );
            }
        }
        self.running.push(Running {
            mean: norm.running_mean.clone(),
            variance: norm.running_var.clone(),
            updates: norm.updates.clone(),
        });
        Ok(Norm {
            weight: self.parameter(&norm.weight),
            bias: self.parameter(&norm.bias),
            running: self.running.len() - 1,
            epsilon: norm.epsilon,
            momentum: norm.momentum,
        })
    }

    fn shape(&self, value: Value) -> [usize; 3] {
        self.graph.shapes[value.0]
    }

    fn push(&mut self, input: Value, layer: Layer, shape: [usize; 3]) -> Value {
        Value(self.graph.push(input.0, layer, shape))
    }
}

impl Layers for Recording {
    fn convolution(
        &mut self,
        input: Value,
        weight: &Tensor,
        bias: Option<&Tensor>,
        (stride, padding): (usize, usize),
        norm: Option<&BatchNorm>,
        residual: Option<Value>,
        activation: Activation,
    ) -> Result<Value> {
        let [channels, height, width] = self.shape(input);
        let geometry = Geometry::new(&[1, channels, height, width], weight.dims(), stride, padding)?;
        let shape = geometry.out_shape();
        if let Some(residual) = residual.filter(|&residual| self.shape(residual) != shape) {
            bail!("{:?} cannot be added to {shape:?}", self.shape(residual));
        }
        let convolution = Convolution {
            geometry,
            weight: self.parameter(weight),
            bias: bias.map(|bias| self.parameter(bias)),
            norm: norm.map(|norm| self.norm(norm, geometry.outputs)).transpose()?,
            residual: residual.map(|Value(value)| value),
            activation,
        };
        Ok(self.push(input, Layer::Convolution(convolution), shape))
    }

    fn linear(
        &mut self,
        input: Value,
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Value> {
        let [channels, height, width] = self.shape(input);
        let (outputs, features) = weight.dims2()?;
        if features != channels * height * width {
            bail!("a linear layer of {features} features cannot read [{channels}, {height}, {width}]");
        }
        // A convolution whose kernel is as large as the image.
        let weight = weight.reshape((outputs, channels, height, width))?;
        self.convolution(input, &weight, bias, (1, 0), None, None, activation)
    }

    fn norm_relu(&mut self, input: Value, norm: &BatchNorm) -> Result<Value> {
        let shape = self.shape(input);
        let norm = self.norm(norm, shape[0])?;
        Ok(self.push(input, Layer::NormRelu(norm), shape))
    }

    fn max_pool(&mut self, input: Value, size: usize) -> Result<Value> {
        let [channels, height, width] = self.shape(input);
        check_window(size)?;
        if height < size || width < size {
            bail!("an image of [{channels}, {height}, {width}] has no {size}x{size} window");
        }
        let shape = [channels, height / size, width / size];
        Ok(self.push(input, Layer::MaxPool(size), shape))
    }

    fn mean_per_channel(&mut self, input: Value) -> Value {
        let [channels, _, _] = self.shape(input);
        self.push(input, Layer::MeanPerChannel, [channels, 1, 1])
    }

    fn dropout(&mut self, input: Value, layer: u64) -> Value {
        self.push(input, Layer::Dropout(layer), self.shape(input))
    }
}
