//! What a network is made of, without its numbers.

use crate::activation::Activation;
use crate::convolution::Geometry;

/// The layers of a network in their order, and the shape of every value between them.
///
/// Two networks with equal graphs differ in nothing but their numbers, so that one can take over the memory and the
/// launches of the other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Graph {
    /// Channels, height and width of every value; the first is the image, the last the logits.
    pub(crate) shapes: Vec<[usize; 3]>,
    /// Step i makes value i + 1.
    pub(crate) steps: Vec<Step>,
    /// How many numbers each parameter has.
    pub(crate) parameters: Vec<usize>,
}

/// One layer, and the value it reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    pub(crate) input: usize,
    pub(crate) layer: Layer,
}

/// A layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Layer {
    Convolution(Convolution),
    /// Batch normalisation, then ReLU.
    NormRelu(Norm),
    /// The maximum of every square window of this size.
    MaxPool(usize),
    /// The mean of every channel.
    MeanPerChannel,
    /// Each number times its factor; several dropouts have different numbers.
    Dropout(u64),
}

/// A convolution, or a fully connected layer as one whose kernel is as large as the image. Then in this
/// order, each if it is given: bias, batch normalisation, sum with a residual, activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Convolution {
    /// Of one image.
    pub(crate) geometry: Geometry,
    pub(crate) weight: Parameter,
    pub(crate) bias: Option<Parameter>,
    pub(crate) norm: Option<Norm>,
    /// The value that is added.
    pub(crate) residual: Option<usize>,
    pub(crate) activation: Activation,
}

/// A parameter, by its place among all.
pub(crate) type Parameter = usize;

/// A batch normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Norm {
    pub(crate) weight: Parameter,
    pub(crate) bias: Parameter,
    /// Which running statistics are its own.
    pub(crate) running: usize,
    pub(crate) epsilon: f64,
    pub(crate) momentum: f64,
}

impl Graph {
    /// Without a layer: images of [channels, height, width].
    pub(crate) fn new(image: [usize; 3]) -> Self {
        Self {
            shapes: vec![image],
            steps: Vec::new(),
            parameters: Vec::new(),
        }
    }

    /// Appends a layer, and returns the value it makes.
    pub(crate) fn push(&mut self, input: usize, layer: Layer, shape: [usize; 3]) -> usize {
        self.steps.push(Step { input, layer });
        self.shapes.push(shape);
        self.last()
    }

    /// The last value: the logits.
    pub(crate) fn last(&self) -> usize {
        self.shapes.len() - 1
    }

    /// The same network without its dropouts, whose inputs take the place of their results.
    pub(crate) fn without_dropout(&self) -> Self {
        let mut graph = Self {
            parameters: self.parameters.clone(),
            ..Self::new(self.shapes[0])
        };
        // Where each value of this graph is found in the new one.
        let mut places = vec![0];
        for (step, &shape) in self.steps.iter().zip(&self.shapes[1..]) {
            let input = places[step.input];
            let place = match step.layer {
                Layer::Dropout(_) => input,
                Layer::Convolution(convolution) => {
                    let residual = convolution.residual.map(|value| places[value]);
                    graph.push(
                        input,
                        Layer::Convolution(Convolution {
                            residual,
                            ..convolution
                        }),
                        shape,
                    )
                }
                layer => graph.push(input, layer, shape),
            };
            places.push(place);
        }
        graph
    }
}

impl Step {
    /// The values it reads.
    pub(crate) fn reads(&self) -> impl Iterator<Item = usize> {
        let residual = match self.layer {
            Layer::Convolution(convolution) => convolution.residual,
            Layer::NormRelu(_) | Layer::MaxPool(_) | Layer::MeanPerChannel | Layer::Dropout(_) => None,
        };
        std::iter::once(self.input).chain(residual)
    }
}
