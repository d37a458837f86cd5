//! Freezes a network for the CPU: folds batch normalisation, packs weights, lays out every value.

use std::sync::Mutex;

use candle_core::{DType, Result, Tensor};

use super::plan::{Convolution, Layer, Method, Plan, Step};
use crate::convolution::{Geometry, Winograd};
use crate::frame::Frame;
use crate::graph::{self, Graph, Norm, Recording};

impl Plan {
    /// Packs a network in evaluation mode.
    pub(super) fn new(recording: &Recording) -> Result<Self> {
        let graph = &recording.graph;
        let (frames, gradient_frames) = frames(graph);
        let mut steps = Vec::with_capacity(graph.steps.len());
        for (index, step) in graph.steps.iter().enumerate() {
            let layer = match &step.layer {
                graph::Layer::Convolution(convolution) => {
                    let frames = [&frames[step.input], &gradient_frames[index + 1]];
                    Layer::Convolution(Box::new(pack(convolution, recording, frames)?))
                }
                graph::Layer::NormRelu(norm) => {
                    let (scale, shift) = scale_and_shift(norm, recording)?;
                    Layer::ScaleShiftRelu { scale, shift }
                }
                graph::Layer::MaxPool(size) => Layer::MaxPool(*size),
                graph::Layer::MeanPerChannel => Layer::MeanPerChannel,
                graph::Layer::Dropout(_) => unreachable!("a network at rest has no dropout"),
            };
            let input = step.input;
            steps.push(Step { input, layer });
        }
        Ok(Self {
            frames,
            gradient_frames,
            steps,
            last_reads: graph.last_reads(),
            group: group(graph),
            workspaces: Mutex::default(),
        })
    }
}

/// The convolutions of a graph: the value that each makes, the one it reads, its sizes and its residual.
fn convolutions(graph: &Graph) -> impl Iterator<Item = (usize, usize, Geometry, Option<usize>)> {
    graph
        .steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| match step.layer {
            graph::Layer::Convolution(convolution) => {
                Some((index + 1, step.input, convolution.geometry, convolution.residual))
            }
            _ => None,
        })
}

/// The border that each value needs for the convolutions that read it, and each gradient for the
/// convolution that made its value. A residual is laid out as the value it is added to.
fn frames(graph: &Graph) -> (Vec<Frame>, Vec<Frame>) {
    let bare: Vec<Frame> = graph.shapes.iter().map(|&shape| Frame::bare(shape)).collect();
    let (mut frames, mut gradients) = (bare.clone(), bare);
    for (output, input, geometry, _) in convolutions(graph) {
        frames[input] = frames[input].union(&geometry.input_frame());
        gradients[output] = gradients[output].union(&geometry.gradient_frame());
    }
    // A chain of residuals needs as many rounds as it is long.
    loop {
        let before = (frames.clone(), gradients.clone());
        for (output, _, _, residual) in convolutions(graph) {
            if let Some(residual) = residual {
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
fn group(graph: &Graph) -> usize {
    const PIXELS: usize = 192;
    let planes = convolutions(graph).map(|(_, _, geometry, _)| geometry.out_pixels());
    let fewest = planes.filter(|&pixels| pixels > 1).min().unwrap_or(1);
    PIXELS.div_ceil(fewest).clamp(4, 16)
}

/// A convolution with the normalisation after it folded in, packed for its input's frame and its result's gradient's.
fn pack(
    convolution: &graph::Convolution,
    recording: &Recording,
    [input, gradient]: [&Frame; 2],
) -> Result<Convolution> {
    let geometry = &convolution.geometry;
    let mut weights = floats(&recording.parameters[convolution.weight])?;
    let mut bias = match convolution.bias {
        Some(bias) => floats(&recording.parameters[bias])?,
        None => vec![0.0; geometry.outputs],
    };
    if let Some(norm) = &convolution.norm {
        let (scale, shift) = scale_and_shift(norm, recording)?;
        for (row, &scale) in weights.chunks_mut(geometry.patch()).zip(&scale) {
            row.iter_mut().for_each(|weight| *weight *= scale);
        }
        for (bias, (scale, shift)) in bias.iter_mut().zip(scale.iter().zip(&shift)) {
            *bias = *bias * scale + shift;
        }
    }
    let forward = match Winograd::forward(geometry, &weights, input) {
        Some(winograd) => Method::Winograd(winograd),
        None => Method::Direct(vec![geometry.forward(&weights, input)]),
    };
    let backward = match Winograd::backward(geometry, &weights, gradient) {
        Some(winograd) => Method::Winograd(winograd),
        None => Method::Direct(geometry.backward(&weights, gradient)),
    };
    Ok(Convolution {
        forward,
        backward,
        bias,
        residual: convolution.residual,
        activation: convolution.activation,
    })
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// Batch normalisation by running statistics as scale · x + shift.
fn scale_and_shift(norm: &Norm, recording: &Recording) -> Result<(Vec<f32>, Vec<f32>)> {
    let doubles = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.to_vec1::<f64>();
    let (parameters, running) = (&recording.parameters, &recording.running[norm.running]);
    let (weight, bias) = (doubles(&parameters[norm.weight])?, doubles(&parameters[norm.bias])?);
    let mean = doubles(running.mean.as_tensor())?;
    let variance = doubles(running.variance.as_tensor())?;
    let scale: Vec<f64> = weight
        .iter()
        .zip(&variance)
        .map(|(weight, variance)| weight / (variance + norm.epsilon).sqrt())
        .collect();
    let shift = bias.iter().zip(mean.iter().zip(&scale));
    let shift = shift.map(|(bias, (mean, scale))| (bias - mean * scale) as f32);
    Ok((scale.iter().map(|&scale| scale as f32).collect(), shift.collect()))
}
