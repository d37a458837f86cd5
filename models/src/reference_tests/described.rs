//! Builds the network that a case describes: its sizes are read from the shapes of the state dictionary.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device};
use random::Stream;
use reference::{Case, NotBuilt};
use serde_json::Value;

use crate::body::Body;
use crate::builder::Builder;
use crate::lenet5::LeNet5;
use crate::network::Network;
use crate::resnet18::ResNet18;
use crate::small_cnn::SmallCnn;
use crate::wide_resnet::{Form, WideResNet};

/// The network whose state dictionary is the case's, with the parameters of the case's formula.
///
/// # Errors
/// The case describes a network that this crate cannot build in any size.
pub(super) fn network(case: &Case, dtype: DType) -> Result<Network, NotBuilt> {
    check_description(&case.meta["arch"])?;
    let image = reference::networks::image(case);
    let entries = reference::networks::entries(case);
    let expected: Vec<_> = entries.into_iter().map(|(name, shape, _)| (name, shape)).collect();
    let shapes = Shapes(expected.iter().cloned().collect());
    let families: [Family; 5] = [
        small_cnn,
        lenet5,
        resnet,
        |make, shapes, image| wide_resnet(Form::Mart, make, shapes, image),
        |make, shapes, image| wide_resnet(Form::Mma, make, shapes, image),
    ];
    for family in families {
        let mut make = Builder::new(&Stream::new(0), dtype, &Device::Cpu);
        let Some((body, classes)) = family(&mut make, &shapes, image) else {
            continue;
        };
        let network = Network::new("described", 1, image, classes, (dtype, Device::Cpu), make, body);
        if state_shapes(&network) == expected {
            network.load_state(&reference::networks::state(case)).unwrap();
            return Ok(network);
        }
    }
    Err(NotBuilt(format!(
        "no network has the state dictionary of {}",
        case.meta["arch"]
    )))
}

/// A ResNet of the given sizes, as the checkpoints' case describes it.
pub(super) fn resnet_of(widths: [usize; 4], depths: [usize; 4], image: [usize; 3], classes: usize) -> Network {
    let mut make = Builder::new(&Stream::new(0), DType::F32, &Device::Cpu);
    let body = ResNet18::of_sizes(&mut make, widths, depths, image, classes).unwrap();
    let place = (DType::F32, Device::Cpu);
    Network::new("resnet18", 1, image, classes, place, make, Arc::new(body))
}

/// Names and shapes of the state dictionary without the counts of updates, which the vectors leave out.
pub(super) fn state_shapes(network: &Network) -> Vec<(String, Vec<usize>)> {
    let counted = |(name, _): &(String, Vec<usize>)| !name.ends_with("num_batches_tracked");
    network.state_shapes().into_iter().filter(counted).collect()
}

/// Two networks may share a state dictionary and differ in the rest of the description.
fn check_description(arch: &Value) -> Result<(), NotBuilt> {
    for (key, value) in arch.as_object().into_iter().flatten() {
        let supported = match key.as_str() {
            "arch" | "B" | "shape" | "classes" | "depth" | "widen" | "widths" | "blocks" => true,
            "activation" => value == "relu",
            "pool" => value == "global",
            "bn_momentum" => value == 0.1,
            _ => false,
        };
        if !supported {
            return Err(NotBuilt(format!("no network with `{key}`: {value}")));
        }
    }
    Ok(())
}

type Family = fn(&mut Builder, &Shapes, [usize; 3]) -> Option<(Arc<dyn Body>, usize)>;

/// The shapes of a state dictionary by name.
struct Shapes(BTreeMap<String, Vec<usize>>);

impl Shapes {
    /// The outputs of a layer.
    fn outputs(&self, layer: &str) -> Option<usize> {
        self.0.get(&format!("{layer}.weight"))?.first().copied()
    }

    /// How many of the layers `name(0)`, `name(1)`, … there are.
    fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|&i| self.outputs(&name(i)).is_some()).count()
    }
}

fn small_cnn(make: &mut Builder, shapes: &Shapes, image: [usize; 3]) -> Option<(Arc<dyn Body>, usize)> {
    let conv = |i: usize| shapes.outputs(&format!("feature_extractor.conv{i}"));
    let fc = |i: usize| shapes.outputs(&format!("classifier.fc{i}"));
    let (widths, hidden, classes) = ([conv(1)?, conv(2)?, conv(3)?, conv(4)?], [fc(1)?, fc(2)?], fc(3)?);
    let body = SmallCnn::of_widths(make, widths, hidden, image, classes).ok()?;
    Some((Arc::new(body), classes))
}

fn lenet5(make: &mut Builder, shapes: &Shapes, image: [usize; 3]) -> Option<(Arc<dyn Body>, usize)> {
    let widths = [
        shapes.outputs("conv1")?,
        shapes.outputs("conv2")?,
        shapes.outputs("linear1")?,
    ];
    let classes = shapes.outputs("linear2")?;
    let body = LeNet5::of_widths(make, widths, image, classes).ok()?;
    Some((Arc::new(body), classes))
}

fn resnet(make: &mut Builder, shapes: &Shapes, image: [usize; 3]) -> Option<(Arc<dyn Body>, usize)> {
    let width = |layer: usize| shapes.outputs(&format!("layer{layer}.0.conv1"));
    let depths = [1, 2, 3, 4].map(|layer| shapes.count(|block| format!("layer{layer}.{block}.conv1")));
    let classes = shapes.outputs("linear")?;
    let widths = [width(1)?, width(2)?, width(3)?, width(4)?];
    let body = ResNet18::of_sizes(make, widths, depths, image, classes).ok()?;
    Some((Arc::new(body), classes))
}

fn wide_resnet(form: Form, make: &mut Builder, shapes: &Shapes, image: [usize; 3]) -> Option<(Arc<dyn Body>, usize)> {
    let (prefix, group) = match form {
        Form::Mart => ("", "block1"),
        Form::Mma => ("1.", "convgroup1"),
    };
    let widen = shapes.outputs(&format!("{prefix}{group}.layer.0.conv1"))? / 16;
    let per_group = shapes.count(|layer| format!("{prefix}{group}.layer.{layer}.conv1"));
    let classes = shapes.outputs(&format!("{prefix}fc"))?;
    let body = WideResNet::new(make, form, [6 * per_group + 4, widen], image, classes).ok()?;
    Some((Arc::new(body), classes))
}
