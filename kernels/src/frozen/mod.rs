//! A network whose parameters do not change, as one operation from images to logits.
//!
//! While an attack runs, the network is a constant. Its weights are packed once, batch normalisation is
//! folded into the convolution before it or becomes one scale and shift, and a group of images goes
//! through all layers before the next one starts, so that activations stay in the caches. Between layers
//! channels lie side by side, inside the border of zeros that the next convolution reads. For the gradient only
//! the signs of the activations are kept.

mod backward;
mod forward;
mod workspace;

use std::sync::{Arc, Mutex};

use candle_core::{DType, Result, Tensor, bail};

use crate::activation::Activation;
use crate::ascent::{Ascended, Ascent};
use crate::batch_norm::BatchNorm;
use crate::convolution::{Geometry, Part, Sink, Winograd};
use crate::frame::Frame;
use crate::layers::{Layers, Value};
use workspace::Workspace;

/// Notes down the layers of a network.
#[derive(Default)]
pub struct Builder {
    /// Channels, height and width of every value; the first is the image.
    shapes: Vec<[usize; 3]>,
    /// The layer that makes each value but the first, and the value it reads.
    layers: Vec<(usize, Draft)>,
    /// The same for a GPU.
    #[cfg(feature = "cuda")]
    card: crate::cuda::frozen::Draft,
}

/// What networks of one structure that are frozen on a GPU one after the other hand on: memory, chosen algorithms,
/// captured graphs. On the CPU there is nothing in it.
#[derive(Clone, Default)]
pub struct Pool(#[cfg(feature = "cuda")] crate::cuda::frozen::Pool);

/// A layer before anybody knows how its input lies in memory.
enum Draft {
    Convolution(Box<Convolving>),
    /// Everything else: layers that read pixel by pixel.
    Other(Layer),
}

struct Convolving {
    geometry: Geometry,
    weights: Vec<f32>,
    bias: Vec<f32>,
    residual: Option<usize>,
    activation: Activation,
}

/// A frozen network.
#[derive(Clone)]
pub struct Frozen(Arc<Plan>);

pub(crate) struct Plan {
    /// How each value lies in memory, and its gradient.
    frames: Vec<Frame>,
    gradient_frames: Vec<Frame>,
    steps: Vec<Step>,
    /// Images that go through all layers together.
    group: usize,
    workspaces: Mutex<Vec<Workspace>>,
    /// The network on its GPU, if it was frozen there.
    #[cfg(feature = "cuda")]
    pub(crate) card: Option<crate::cuda::frozen::Network>,
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
}

/// relu(w ∗ x + bias + residual), the last two and the ReLU if there are any.
struct Convolution {
    forward: Method,
    backward: Method,
    bias: Vec<f32>,
    residual: Option<usize>,
    activation: Activation,
}

/// How a correlation of frames is computed.
enum Method {
    /// As products with the frame's numbers where they lie.
    Direct(Vec<Part<f32>>),
    Winograd(Winograd),
}

impl Builder {
    /// Starts with images of [channels, height, width].
    pub fn new(image: [usize; 3]) -> (Self, Value) {
        let builder = Self {
            shapes: vec![image],
            ..Self::default()
        };
        (builder, Value(0))
    }

    /// Lets this network take over what an earlier one left in the pool, and leave it there in the end.
    pub fn use_pool(&mut self, pool: &Pool) {
        #[cfg(feature = "cuda")]
        self.card.use_pool(&pool.0);
        #[cfg(not(feature = "cuda"))]
        let _ = pool;
    }

    fn push(&mut self, input: Value, layer: Draft, shape: [usize; 3]) -> Value {
        self.layers.push((input.0, layer));
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
        #[cfg(feature = "cuda")]
        if weight.device().is_cuda() {
            let residual = residual.map(|it| it.0);
            self.card
                .convolution(input.0, geometry, [Some(weight), bias], norm, residual, activation);
            self.shapes.push(shape);
            return Ok(Value(self.shapes.len() - 1));
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
        let convolving = Convolving {
            geometry,
            weights,
            bias: biases,
            residual: residual.map(|it| it.0),
            activation,
        };
        Ok(self.push(input, Draft::Convolution(Box::new(convolving)), shape))
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
        let (outputs, features) = weight.dims2()?;
        if features != channels * height * width {
            bail!("frozen: {features} features from a value of [{channels}, {height}, {width}]");
        }
        // A convolution whose kernel is as large as the image.
        let weight = weight.reshape((outputs, channels, height, width))?;
        self.convolution(input, &weight, bias, (1, 0), None, None, activation)
    }

    /// Batch normalisation by running statistics, then ReLU.
    pub fn norm_relu(&mut self, input: Value, norm: &BatchNorm) -> Result<Value> {
        let shape = self.shapes[input.0];
        #[cfg(feature = "cuda")]
        if norm.weight.device().is_cuda() {
            self.card.norm_relu(input.0, norm);
            self.shapes.push(shape);
            return Ok(Value(self.shapes.len() - 1));
        }
        let (scale, shift) = scale_and_shift(norm)?;
        Ok(self.push(input, Draft::Other(Layer::ScaleShiftRelu { scale, shift }), shape))
    }

    /// The maximum of every `size` × `size` window.
    pub fn max_pool(&mut self, input: Value, size: usize) -> Value {
        let [channels, height, width] = self.shapes[input.0];
        #[cfg(feature = "cuda")]
        self.card.max_pool(input.0, size);
        let shape = [channels, height / size, width / size];
        self.push(input, Draft::Other(Layer::MaxPool(size)), shape)
    }

    /// The mean of every channel.
    pub fn mean_per_channel(&mut self, input: Value) -> Value {
        #[cfg(feature = "cuda")]
        self.card.mean_per_channel(input.0);
        let shape = [self.shapes[input.0][0], 1, 1];
        self.push(input, Draft::Other(Layer::MeanPerChannel), shape)
    }

    /// The network whose logits are the last value.
    pub fn finish(self) -> Frozen {
        #[cfg(feature = "cuda")]
        if self.card.is_on_gpu() {
            let card = self.card.finish(&self.shapes);
            let frames = self.shapes.iter().map(|&shape| Frame::bare(shape)).collect();
            return Frozen(Arc::new(Plan::on_gpu(card, frames)));
        }
        let (frames, gradient_frames) = self.frames();
        let group = self.group();
        let steps = self.layers.into_iter().enumerate().map(|(index, (input, draft))| Step {
            input,
            layer: match draft {
                Draft::Other(layer) => layer,
                Draft::Convolution(it) => {
                    Layer::Convolution(Box::new(it.pack(&frames[input], &gradient_frames[index + 1])))
                }
            },
        });
        Frozen(Arc::new(Plan {
            steps: steps.collect(),
            frames,
            gradient_frames,
            group,
            workspaces: Mutex::default(),
            #[cfg(feature = "cuda")]
            card: None,
        }))
    }

    /// The border that each value needs for the convolutions that read it, and each gradient for the
    /// convolution that made its value. A residual lies as the value it is added to.
    fn frames(&self) -> (Vec<Frame>, Vec<Frame>) {
        let bare: Vec<Frame> = self.shapes.iter().map(|&shape| Frame::bare(shape)).collect();
        let (mut frames, mut gradients) = (bare.clone(), bare);
        let convolutions = || {
            self.layers
                .iter()
                .enumerate()
                .filter_map(|(index, (input, draft))| match draft {
                    Draft::Convolution(it) => Some((index + 1, *input, it)),
                    Draft::Other(_) => None,
                })
        };
        for (output, input, convolution) in convolutions() {
            frames[input] = frames[input].union(&convolution.geometry.input_frame());
            gradients[output] = gradients[output].union(&convolution.geometry.gradient_frame());
        }
        // A chain of residuals needs as many rounds as it is long.
        loop {
            let before = (frames.clone(), gradients.clone());
            for (output, _, convolution) in convolutions() {
                if let Some(residual) = convolution.residual {
                    for frames in [&mut frames, &mut gradients] {
                        let both = frames[output].union(&frames[residual]);
                        (frames[output], frames[residual]) = (both, both);
                    }
                }
            }
            if before == (frames.clone(), gradients.clone()) {
                return (frames, gradients);
            }
        }
    }

    /// Enough images that the smallest planes fill tiles.
    fn group(&self) -> usize {
        const PIXELS: usize = 192;
        let planes = self
            .layers
            .iter()
            .zip(&self.shapes[1..])
            .filter_map(|((_, draft), shape)| matches!(draft, Draft::Convolution(_)).then_some(shape[1] * shape[2]));
        let fewest = planes.filter(|&pixels| pixels > 1).min().unwrap_or(1);
        PIXELS.div_ceil(fewest).clamp(4, 16)
    }
}

impl Layers for Builder {
    fn convolution(
        &mut self,
        input: Value,
        weight: &Tensor,
        bias: Option<&Tensor>,
        shape: (usize, usize),
        norm: Option<&BatchNorm>,
        residual: Option<Value>,
        activation: Activation,
    ) -> Result<Value> {
        let norm = norm.map(constant);
        self.convolution(input, weight, bias, shape, norm.as_ref(), residual, activation)
    }

    fn linear(
        &mut self,
        input: Value,
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Value> {
        self.linear(input, weight, bias, activation)
    }

    fn norm_relu(&mut self, input: Value, norm: &BatchNorm) -> Result<Value> {
        self.norm_relu(input, &constant(norm))
    }

    fn max_pool(&mut self, input: Value, size: usize) -> Value {
        self.max_pool(input, size)
    }

    fn mean_per_channel(&mut self, input: Value) -> Value {
        self.mean_per_channel(input)
    }

    /// A network at rest drops nothing.
    fn dropout(&mut self, input: Value, _: u64) -> Value {
        input
    }
}

#[cfg(feature = "cuda")]
impl Plan {
    /// A network whose steps are the card's business; the frames tell the shapes.
    fn on_gpu(card: crate::cuda::frozen::Network, frames: Vec<Frame>) -> Self {
        Self {
            gradient_frames: frames.clone(),
            frames,
            steps: Vec::new(),
            group: 1,
            workspaces: Mutex::default(),
            card: Some(card),
        }
    }
}

impl Convolving {
    fn pack(self, input: &Frame, gradient: &Frame) -> Convolution {
        let (geometry, weights) = (self.geometry, &self.weights);
        let forward = match Winograd::forward(&geometry, weights, input) {
            Some(winograd) => Method::Winograd(winograd),
            None => Method::Direct(vec![geometry.forward(weights, input)]),
        };
        let backward = match Winograd::backward(&geometry, weights, gradient) {
            Some(winograd) => Method::Winograd(winograd),
            None => Method::Direct(geometry.backward(weights, gradient)),
        };
        Convolution {
            forward,
            backward,
            bias: self.bias,
            residual: self.residual,
            activation: self.activation,
        }
    }
}

impl Method {
    /// Computes the correlation; the result lies in frames `out`.
    fn run(
        &self,
        values: &[f32],
        images: usize,
        input: &Frame,
        out: &Frame,
        work: &mut Workspace,
        sink: &mut impl Sink<f32>,
    ) {
        match self {
            Self::Direct(parts) => {
                for part in parts {
                    part.run(values, images, input.len(), out, sink);
                }
            }
            Self::Winograd(winograd) => winograd.run(values, images, input, out, &mut work.winograd, sink),
        }
    }
}

impl Frozen {
    /// The logits `[B, K]` of f32 `images` `[B, C, H, W]`.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let Frame {
            channels,
            height,
            width,
            ..
        } = self.0.frames[0];
        let image = [channels, height, width];
        if images.dims().get(1..) != Some(&image) || images.dtype() != DType::F32 {
            bail!(
                "frozen: images {:?} {:?} instead of [B, C, H, W] = [B, {image:?}] F32",
                images.dims(),
                images.dtype(),
            );
        }
        let images = images.contiguous()?;
        #[cfg(feature = "cuda")]
        if self.0.card.is_some() {
            let (plan, pass) = (self.0.clone(), Mutex::default());
            return images.apply_op1(crate::cuda::frozen::Run { plan, pass });
        }
        let run = forward::Run::new(self.0.clone(), images.track_op());
        images.apply_op1(run)
    }
}

/// With parameters that are not tracked.
fn constant(norm: &BatchNorm) -> BatchNorm {
    BatchNorm {
        weight: norm.weight.detach(),
        bias: norm.bias.detach(),
        ..norm.clone()
    }
}

impl Frozen {
    /// A whole ascent without leaving the GPU; `None` where the network is not on one.
    pub fn ascend(&self, ascent: &Ascent<'_>) -> Result<Option<Ascended>> {
        #[cfg(feature = "cuda")]
        if let Some(network) = &self.0.card {
            return network.ascend(ascent).map(Some);
        }
        let _ = ascent;
        Ok(None)
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
