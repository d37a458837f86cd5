//! The parameters of a frozen network, batch normalisation folded in.

use candle_core::{Result, Tensor};

use crate::cuda::arena::Arena;
use crate::cuda::machine::{self, Address, Constants, Form, Machine};
use crate::graph::{Convolution, Graph, Layer, Recording};

/// Where the numbers of one layer are, if it has them; all f32.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Source {
    pub(crate) weight: Address,
    pub(crate) bias: Address,
    pub(crate) norm: Constants,
}

/// Where the numbers of each step of a network in evaluation mode are; `place` finds its tensors.
pub(crate) fn sources(recording: &Recording, mut place: impl FnMut(&Tensor) -> Result<Address>) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for step in &recording.graph.steps {
        let mut source = Source::default();
        let norm = match step.layer {
            Layer::Convolution(Convolution { weight, bias, norm, .. }) => {
                source.weight = place(&recording.parameters[weight])?;
                if let Some(bias) = bias {
                    source.bias = place(&recording.parameters[bias])?;
                }
                norm
            }
            Layer::NormRelu(norm) => Some(norm),
            Layer::MaxPool(_) | Layer::MeanPerChannel | Layer::Dropout(_) => None,
        };
        if let Some(norm) = norm {
            let running = &recording.running[norm.running];
            source.norm = Constants {
                norm: [
                    place(&recording.parameters[norm.weight])?,
                    place(&recording.parameters[norm.bias])?,
                    place(running.mean.as_tensor())?,
                    place(running.variance.as_tensor())?,
                ],
                epsilon: norm.epsilon,
            };
        }
        sources.push(source);
    }
    Ok(sources)
}

/// Where folded parameters are, from the parameters' start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Folded {
    /// Weights, or the scale of a norm.
    pub(super) weight: u64,
    /// Bias, or the shift of a norm.
    pub(super) shift: u64,
}

/// Parameters of a network in one form: shared by programs of any batch.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    pub(super) folded: Vec<Folded>,
    pub(crate) bytes: u64,
}

impl Parameters {
    pub(crate) fn new(graph: &Graph, form: Form) -> Self {
        let mut arena = Arena::default();
        let mut folded = Vec::new();
        for (step, &[channels, _, _]) in graph.steps.iter().zip(&graph.shapes[1..]) {
            let weight = match step.layer {
                Layer::Convolution(Convolution { geometry, .. }) => geometry.outputs * geometry.patch() * form.width(),
                Layer::NormRelu(_) => channels * 4,
                Layer::MaxPool(_) | Layer::MeanPerChannel | Layer::Dropout(_) => {
                    folded.push(Folded::default());
                    continue;
                }
            };
            folded.push(Folded {
                weight: arena.take(weight).start,
                shift: arena.take(channels * 4).start,
            });
        }
        Self {
            folded,
            bytes: arena.end(),
        }
    }

    /// Folds batch normalisation into every convolution and puts all numbers in their place.
    pub(crate) fn fill(
        &self,
        machine: &impl Machine,
        graph: &Graph,
        form: Form,
        sources: &[Source],
        base: Address,
    ) -> Result<()> {
        for (index, (folded, source)) in self.folded.iter().zip(sources).enumerate() {
            let channels = graph.shapes[index + 1][0] as u32;
            let [weight, shift] = [base + folded.weight, base + folded.shift];
            let scale = match &graph.steps[index].layer {
                Layer::Convolution(Convolution { geometry, .. }) => {
                    machine::fold(machine, form, weight, source.weight, source.norm, geometry)?;
                    0
                }
                Layer::NormRelu(_) => weight,
                Layer::MaxPool(_) | Layer::MeanPerChannel | Layer::Dropout(_) => continue,
            };
            machine::fold_norm(machine, [scale, shift], source.bias, source.norm, channels)?;
        }
        Ok(())
    }
}
