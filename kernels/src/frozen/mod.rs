//! A network whose parameters do not change, as one operation from images to logits.
//!
//! While an attack runs, the network is a constant. Its weights are packed once, batch normalisation is
//! folded into the convolution before it or becomes one scale and shift, and a group of images goes
//! through all layers before the next one starts, so that activations stay in the cache. For the
//! gradient only the signs of the activations are kept.

mod backward;
mod forward;
mod workspace;

use std::sync::{Arc, Mutex};

use candle_core::{DType, Result, Tensor, bail};

use crate::batch_norm::BatchNorm;
use crate::bias::Activation;
use crate::convolution::{Geometry, Padded, Part, Winograd};
use workspace::Workspace;

/// An intermediate result of a [`Builder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value(usize);

/// Notes down the layers of a network.
#[derive(Default)]
pub struct Builder {
    /// Channels, height and width of every value; the first is the image.
    shapes: Vec<[usize; 3]>,
    steps: Vec<Step>,
}

/// A frozen network.
#[derive(Clone)]
pub struct Frozen(Arc<Plan>);

struct Plan {
    shapes: Vec<[usize; 3]>,
    steps: Vec<Step>,
    /// Images that go through all layers together.
    group: usize,
    workspaces: Mutex<Vec<Workspace>>,
}

/// One layer: from value `input` to the next value.
struct Step {
    input: usize,
    layer: Layer,
}

enum Layer {
    Convolution(Box<Convolution>),
    /// max(scale · x + shift, 0) per channel.
    ScaleShiftRelu {
        scale: Vec<f32>,
        shift: Vec<f32>,
    },
    MaxPool(usize),
    MeanPerChannel,
    Flatten,
}

/// relu(w ∗ x + bias + residual), the last two and the ReLU if there are any.
struct Convolution {
    padded: Padded,
    forward: Method,
    padded_gradient: Padded,
    backward: Method,
    /// Height and width of the result.
    out: [usize; 2],
    bias: Vec<f32>,
    residual: Option<usize>,
    activation: Activation,
}

/// How a correlation of padded images is computed.
enum Method {
    /// As products with image columns.
    Direct(Vec<Part<f32>>),
    Winograd(Winograd),
}

impl Builder {
    /// Starts with images of [channels, height, width].
    pub fn new(image: [usize; 3]) -> (Self, Value) {
        let builder = Self {
            shapes: vec![image],
            steps: Vec::new(),
        };
        (builder, Value(0))
    }

    fn push(&mut self, input: Value, layer: Layer, shape: [usize; 3]) -> Value {
        self.steps.push(Step { input: input.0, layer });
        self.shapes.push(shape);
        Value(self.shapes.len() - 1)
    }

    /// A convolution of `input`, then in this order, as far as they are there: bias, batch
    /// normalisation by running statistics, sum with `residual`, activation.
    #[allow(clippy::too_many_arguments)]
    pub fn convolution(
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
            bail!("frozen: {:?} cannot be added to {shape:?}", self.shapes[residual.0]);
        }
        if residual == Some(input) {
            bail!("frozen: a convolution's input cannot be its residual");
        }
        let mut weights = floats(weight)?;
        let mut biases = match bias {
            Some(bias) => floats(bias)?,
            None => vec![0.0; geometry.outputs],
        };
        if let Some(norm) = norm {
            let (scale, shift) = scale_and_shift(norm)?;
            for (row, &scale) in weights.chunks_mut(geometry.patch()).zip(&scale) {
                row.iter_mut().for_each(|weight| *weight *= scale);
            }
            for (bias, (scale, shift)) in biases.iter_mut().zip(scale.iter().zip(&shift)) {
                *bias = *bias * scale + shift;
            }
        }
        let (padded_gradient, backward) = geometry.backward(&weights);
        let forward = match Winograd::forward(&geometry, &weights) {
            Some(winograd) => Method::Winograd(winograd),
            None => Method::Direct(vec![geometry.forward(&weights)]),
        };
        let backward = match Winograd::backward(&geometry, &weights) {
            Some(winograd) => Method::Winograd(winograd),
            None => Method::Direct(backward),
        };
        let convolution = Convolution {
            padded: geometry.padded_input(),
            forward,
            padded_gradient,
            backward,
            out: [geometry.out_height, geometry.out_width],
            bias: biases,
            residual: residual.map(|it| it.0),
            activation,
        };
        Ok(self.push(input, Layer::Convolution(Box::new(convolution)), shape))
    }

    /// A fully connected layer over the flattened `input`.
    pub fn linear(
        &mut self,
        input: Value,
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Value> {
        let [channels, height, width] = self.shapes[input.0];
        let flat = match (height, width) {
            (1, 1) => input,
            _ => self.push(input, Layer::Flatten, [channels * height * width, 1, 1]),
        };
        let (outputs, features) = weight.dims2()?;
        let weight = weight.reshape((outputs, features, 1, 1))?;
        self.convolution(flat, &weight, bias, (1, 0), None, None, activation)
    }

    /// Batch normalisation by running statistics, then ReLU.
    pub fn norm_relu(&mut self, input: Value, norm: &BatchNorm) -> Result<Value> {
        let (scale, shift) = scale_and_shift(norm)?;
        let shape = self.shapes[input.0];
        Ok(self.push(input, Layer::ScaleShiftRelu { scale, shift }, shape))
    }

    /// The maximum of every `size` × `size` window.
    pub fn max_pool(&mut self, input: Value, size: usize) -> Value {
        let [channels, height, width] = self.shapes[input.0];
        self.push(input, Layer::MaxPool(size), [channels, height / size, width / size])
    }

    /// The mean of every channel.
    pub fn mean_per_channel(&mut self, input: Value) -> Value {
        let shape = [self.shapes[input.0][0], 1, 1];
        self.push(input, Layer::MeanPerChannel, shape)
    }

    /// The network whose logits are the last value.
    pub fn finish(self) -> Frozen {
        const COLUMNS: usize = 128;
        let convolved = self
            .steps
            .iter()
            .zip(&self.shapes[1..])
            .filter_map(|(step, shape)| matches!(step.layer, Layer::Convolution(_)).then_some(shape[1] * shape[2]));
        let fewest = convolved.filter(|&pixels| pixels > 1).min().unwrap_or(1);
        Frozen(Arc::new(Plan {
            group: COLUMNS.div_ceil(fewest).clamp(1, 16),
            shapes: self.shapes,
            steps: self.steps,
            workspaces: Mutex::default(),
        }))
    }
}

impl Frozen {
    /// The logits `[B, K]` of f32 `images` `[B, C, H, W]`.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        if images.dims().get(1..) != Some(&self.0.shapes[0]) || images.dtype() != DType::F32 {
            bail!(
                "frozen: images {:?} {:?} instead of [B, C, H, W] = [B, {:?}] F32",
                images.dims(),
                images.dtype(),
                self.0.shapes[0]
            );
        }
        let images = images.contiguous()?;
        let run = forward::Run::new(self.0.clone(), images.track_op());
        images.apply_op1(run)
    }
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// Batch normalisation by running statistics as scale · x + shift.
fn scale_and_shift(norm: &BatchNorm) -> Result<(Vec<f32>, Vec<f32>)> {
    let doubles = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.to_vec1::<f64>();
    let (weight, bias) = (doubles(&norm.weight)?, doubles(&norm.bias)?);
    let (mean, variance) = (
        doubles(norm.running_mean.as_tensor())?,
        doubles(norm.running_var.as_tensor())?,
    );
    let scale: Vec<f64> = weight
        .iter()
        .zip(&variance)
        .map(|(weight, variance)| weight / (variance + norm.epsilon).sqrt())
        .collect();
    let shift = bias.iter().zip(mean.iter().zip(&scale));
    let shift = shift.map(|(bias, (mean, scale))| (bias - mean * scale) as f32);
    Ok((scale.iter().map(|&scale| scale as f32).collect(), shift.collect()))
}
