//! A network in training as one operation from images and parameters to logits.
//!
//! Layer after layer goes over the whole batch, because batch statistics see all of it; inside a layer
//! every image is a task of its own. Channels lie side by side throughout. What the gradient needs is
//! kept, once, and given back as soon as it has been used, so that a step takes little more memory than
//! its activations.

mod backward;
mod forward;
mod gradients;
mod norm;
mod pool;

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, Var, bail};

use crate::activation::Activation;
use crate::batch_norm::{BatchNorm, Statistics};
use crate::convolution::Geometry;
#[cfg(any(feature = "cuda", test))]
use crate::cuda::program::trained as program;
use crate::element::values;
use crate::layers::{Layers, Value};
pub(crate) use gradients::Gradients;
pub use pool::Pool;

/// Notes down the layers of a network that is to be trained.
#[derive(Default)]
pub struct Builder {
    /// Channels, height and width of every value; the first is the image.
    shapes: Vec<[usize; 3]>,
    steps: Vec<Step>,
    parameters: Vec<Tensor>,
    pool: Pool,
}

/// Factors of one dropout: of a layer, so many for each example of the batch.
pub type Factors<'a> = &'a dyn Fn(u64, usize) -> Vec<f32>;

/// One layer: from value `input` to the next value.
struct Step {
    input: usize,
    layer: Layer,
}

enum Layer {
    Convolution {
        geometry: Geometry,
        weight: Parameter,
        bias: Option<Parameter>,
        norm: Option<Norm>,
        residual: Option<usize>,
        activation: Activation,
    },
    NormRelu(Norm),
    MaxPool(usize),
    MeanPerChannel,
    Dropout(u64),
}

/// A parameter, by its place among all.
type Parameter = usize;

/// A batch normalisation.
struct Norm {
    weight: Parameter,
    bias: Parameter,
    running_mean: Var,
    running_var: Var,
    epsilon: f64,
    momentum: f64,
    updates: Arc<AtomicI64>,
}

impl Builder {
    /// Starts with images of [channels, height, width]. The pool's memory is used, and left there for the
    /// next pass.
    pub fn new(image: [usize; 3], pool: &Pool) -> (Self, Value) {
        let builder = Self {
            shapes: vec![image],
            pool: pool.clone(),
            ..Self::default()
        };
        (builder, Value(0))
    }

    fn push(&mut self, input: Value, layer: Layer, shape: [usize; 3]) -> Value {
        self.steps.push(Step { input: input.0, layer });
        self.shapes.push(shape);
        Value(self.shapes.len() - 1)
    }

    fn parameter(&mut self, tensor: &Tensor) -> Result<Parameter> {
        if tensor.dtype() != DType::F32 {
            bail!("trained: a parameter is {:?}, not f32", tensor.dtype());
        }
        self.parameters.push(tensor.contiguous()?);
        Ok(self.parameters.len() - 1)
    }

    fn norm(&mut self, norm: &BatchNorm) -> Result<Norm> {
        Ok(Norm {
            weight: self.parameter(&norm.weight)?,
            bias: self.parameter(&norm.bias)?,
            running_mean: norm.running_mean.clone(),
            running_var: norm.running_var.clone(),
            epsilon: norm.epsilon,
            momentum: norm.momentum,
            updates: norm.updates.clone(),
        })
    }

    /// The logits `[B, K]` of f32 `images` `[B, C, H, W]`, those of the last layer, with the batch's own
    /// statistics. Gradients flow to the parameters, and to the images if somebody tracks them. The gradient
    /// can be asked for once: what it needs is gone then.
    pub fn logits(self, images: &Tensor, statistics: Statistics, dropout: Option<Factors<'_>>) -> Result<Tensor> {
        let [channels, height, width] = self.shapes[0];
        if images.dims().get(1..) != Some(&self.shapes[0]) || images.dtype() != DType::F32 {
            bail!(
                "trained: images {:?} {:?} instead of [B, C, H, W] = [B, {channels}, {height}, {width}] F32",
                images.dims(),
                images.dtype(),
            );
        }
        if statistics == Statistics::Running {
            bail!("trained: only for the batch's own statistics");
        }
        let batch = images.dims()[0];
        let gradients = Gradients::default();
        let token = gradients.token(&self.parameters, images.device())?;
        let mut factors = vec![Vec::new(); self.steps.len()];
        for (step, factors) in self.steps.iter().zip(&mut factors) {
            if let (Layer::Dropout(layer), Some(draw)) = (&step.layer, dropout) {
                let width = self.shapes[step.input].iter().product();
                *factors = draw(*layer, width);
                if factors.len() != batch * width {
                    bail!("trained: {} factors of a dropout over {batch} x {width}", factors.len());
                }
            }
        }
        let images = images.contiguous()?;
        #[cfg(feature = "cuda")]
        if images.device().is_cuda() {
            let factors = dropout.is_some().then(|| factors.concat());
            return self.on_gpu(gradients)?.logits(&images, &token, statistics, factors);
        }
        let run = Run {
            keep: images.track_op() || token.track_op(),
            shapes: self.shapes,
            steps: self.steps,
            parameters: self.parameters.iter().map(Tensor::detach).collect(),
            gradients,
            pool: self.pool,
            statistics,
            factors,
            kept: Mutex::default(),
        };
        images.apply_op2(&token, run)
    }
}

/// The same network for a GPU.
#[cfg(any(feature = "cuda", test))]
impl Builder {
    /// What it is made of, and its running means and variances.
    pub(crate) fn structure(&self) -> (program::Structure, Vec<[Var; 2]>) {
        let mut running = Vec::new();
        let mut norm = |norm: &Norm| {
            running.push([norm.running_mean.clone(), norm.running_var.clone()]);
            program::Norm {
                weight: norm.weight,
                bias: norm.bias,
                which: running.len() - 1,
                epsilon: norm.epsilon,
                momentum: norm.momentum,
            }
        };
        let layers = self.steps.iter().map(|step| {
            let layer = match &step.layer {
                Layer::Convolution {
                    geometry,
                    weight,
                    bias,
                    norm: after,
                    residual,
                    activation,
                } => program::Layer::Convolution {
                    geometry: *geometry,
                    weight: *weight,
                    bias: *bias,
                    norm: after.as_ref().map(&mut norm),
                    residual: *residual,
                    relu: *activation == Activation::Relu,
                },
                Layer::NormRelu(it) => program::Layer::NormRelu(norm(it)),
                Layer::MaxPool(size) => program::Layer::MaxPool(*size),
                Layer::MeanPerChannel => program::Layer::Mean,
                Layer::Dropout(_) => program::Layer::Dropout,
            };
            (step.input, layer)
        });
        let layers = layers.collect();
        let structure = program::Structure {
            shapes: self.shapes.clone(),
            layers,
            parameters: self.parameters.iter().map(Tensor::elem_count).collect(),
            norms: running.len(),
        };
        (structure, running)
    }

    /// All parameters, in the structure's order.
    #[cfg(test)]
    pub(crate) fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    #[cfg(feature = "cuda")]
    fn on_gpu(self, gradients: Gradients) -> Result<crate::cuda::trained::Network> {
        let (structure, running) = self.structure();
        Ok(crate::cuda::trained::Network {
            structure,
            running,
            parameters: self.parameters.iter().map(Tensor::detach).collect(),
            gradients,
            pool: self.pool.card.clone(),
            updates: self.updates(),
        })
    }

    /// The counters of all normalisations' updates.
    #[cfg(feature = "cuda")]
    fn updates(&self) -> Vec<Arc<AtomicI64>> {
        let norms = self.steps.iter().filter_map(|step| match &step.layer {
            Layer::Convolution { norm, .. } => norm.as_ref(),
            Layer::NormRelu(norm) => Some(norm),
            Layer::MaxPool(_) | Layer::MeanPerChannel | Layer::Dropout(_) => None,
        });
        norms.map(|norm| norm.updates.clone()).collect()
    }
}

impl Layers for Builder {
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
        let [channels, height, width] = self.shapes[input.0];
        let geometry = Geometry::new(&[1, channels, height, width], weight.dims(), stride, padding)?;
        let shape = [geometry.outputs, geometry.out_height, geometry.out_width];
        if let Some(residual) = residual.filter(|it| self.shapes[it.0] != shape) {
            bail!("trained: {:?} cannot be added to {shape:?}", self.shapes[residual.0]);
        }
        let layer = Layer::Convolution {
            geometry,
            weight: self.parameter(weight)?,
            bias: bias.map(|bias| self.parameter(bias)).transpose()?,
            norm: norm.map(|norm| self.norm(norm)).transpose()?,
            residual: residual.map(|it| it.0),
            activation,
        };
        Ok(self.push(input, layer, shape))
    }

    fn linear(
        &mut self,
        input: Value,
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Value> {
        let [channels, height, width] = self.shapes[input.0];
        let (outputs, features) = weight.dims2()?;
        if features != channels * height * width {
            bail!("trained: {features} features from a value of [{channels}, {height}, {width}]");
        }
        // A convolution whose kernel is as large as the image.
        let weight = weight.reshape((outputs, channels, height, width))?;
        self.convolution(input, &weight, bias, (1, 0), None, None, activation)
    }

    fn norm_relu(&mut self, input: Value, norm: &BatchNorm) -> Result<Value> {
        let norm = self.norm(norm)?;
        Ok(self.push(input, Layer::NormRelu(norm), self.shapes[input.0]))
    }

    fn max_pool(&mut self, input: Value, size: usize) -> Value {
        let [channels, height, width] = self.shapes[input.0];
        self.push(input, Layer::MaxPool(size), [channels, height / size, width / size])
    }

    fn mean_per_channel(&mut self, input: Value) -> Value {
        let shape = [self.shapes[input.0][0], 1, 1];
        self.push(input, Layer::MeanPerChannel, shape)
    }

    fn dropout(&mut self, input: Value, layer: u64) -> Value {
        self.push(input, Layer::Dropout(layer), self.shapes[input.0])
    }
}

/// One pass of a network.
struct Run {
    shapes: Vec<[usize; 3]>,
    steps: Vec<Step>,
    parameters: Vec<Tensor>,
    gradients: Gradients,
    pool: Pool,
    statistics: Statistics,
    /// Of every dropout; empty for other steps, and without dropout.
    factors: Vec<Vec<f32>>,
    /// Whether a gradient may be asked for.
    keep: bool,
    kept: Mutex<Option<Kept>>,
}

/// What the gradient needs of a forward pass.
struct Kept {
    /// The values `[B, H, W, C]` that it reads.
    values: Vec<Option<Vec<f32>>>,
    /// What it needs of each step besides.
    notes: Vec<Note>,
}

/// What the gradient needs of one step.
#[derive(Default)]
struct Note {
    /// What a convolution's batch normalisation got, `[B, H, W, C]`.
    normalised: Vec<f32>,
    moments: Option<norm::Moments>,
    /// The places of maxima.
    places: Vec<u8>,
}

impl CustomOp2 for Run {
    fn name(&self) -> &'static str {
        "trained-network"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let images = values::<f32>(x, lx)?;
        let batch = lx.dims()[0];
        let (logits, kept) = self.with_parameters(|parameters| self.forward(images, batch, parameters))?;
        if self.keep {
            *self.kept.lock().expect("no pass panicked") = Some(kept);
        }
        let classes = logits.len() / batch.max(1);
        Ok((CpuStorage::F32(logits), (batch, classes).into()))
    }

    fn bwd(
        &self,
        images: &Tensor,
        token: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(kept) = self.kept.lock().expect("no pass panicked").take() else {
            bail!("trained: the gradient of a pass can be asked for once; make another pass");
        };
        let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
        let found = self.with_parameters(|parameters| self.backward(kept, gradient, parameters, images.track_op()))?;
        let to_images = found
            .images
            .map(|numbers| Tensor::from_vec(numbers, images.shape(), images.device()))
            .transpose()?;
        let parameters = self.parameters.iter().zip(found.parameters);
        let parameters = parameters.map(|(it, numbers)| Tensor::from_vec(numbers, it.shape(), it.device()));
        self.gradients.leave(parameters.collect::<Result<_>>()?);
        Ok((to_images, Some(token.zeros_like()?)))
    }
}

impl Run {
    /// Runs with the numbers of all parameters.
    fn with_parameters<R>(&self, run: impl FnOnce(&[&[f32]]) -> Result<R>) -> Result<R> {
        let guards: Vec<_> = self.parameters.iter().map(Tensor::storage_and_layout).collect();
        let numbers: Result<Vec<&[f32]>> = guards
            .iter()
            .map(|(storage, layout)| match &**storage {
                candle_core::Storage::Cpu(storage) => values::<f32>(storage, layout),
                _ => bail!("trained: only there on the CPU"),
            })
            .collect();
        run(&numbers?)
    }
}
