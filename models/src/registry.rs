//! Networks by name.

use std::sync::Arc;

use candle_core::{DType, Device};
use random::Stream;

use crate::builder::Builder;
use crate::lenet5::LeNet5;
use crate::network::{Body, ModelError, Network};
use crate::resnet18::ResNet18;
use crate::small_cnn::{self, SmallCnn};
use crate::tiny_cnn::TinyCnn;
use crate::wide_resnet::{Form, WideResNet};

/// One line of the list of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The name, or the pattern of a family's names.
    pub name: &'static str,
    /// One line about it.
    pub summary: &'static str,
    /// Paper and public code.
    pub source: &'static str,
    /// Increases whenever the same parameters would give other logits.
    pub version: u32,
}

/// All networks.
pub fn entries() -> &'static [Entry] {
    ENTRIES
}

const ENTRIES: &[Entry] = &[
    Entry {
        name: "tiny-cnn",
        summary: "two convolutions with batch norm and a linear layer, for 8x8 digits",
        source: "this project",
        version: 2,
    },
    Entry {
        name: "small-cnn",
        summary: "four convolutions and three linear layers, dropout, for MNIST",
        source: "TRADES, Zhang et al. 2019, arXiv:1901.08573; yaodongyu/TRADES models/small_cnn.py",
        version: 2,
    },
    Entry {
        name: "lenet5",
        summary: "two 5x5 convolutions and two linear layers, for MNIST",
        source: "Madry et al. 2018, arXiv:1706.06083; BorealisAI/advertorch LeNet5Madry",
        version: 2,
    },
    Entry {
        name: "resnet18",
        summary: "18-layer residual network for 32x32 images",
        source: "MART, Wang et al. 2020; YisenWang/MART resnet.py",
        version: 2,
    },
    Entry {
        name: "wrn-D-K",
        summary: "wide residual network of depth D and width K, such as wrn-34-10 or wrn-28-10",
        source: "Zagoruyko and Komodakis 2016, arXiv:1605.07146; YisenWang/MART wideresnet.py",
        version: 2,
    },
    Entry {
        name: "mma-wrn-D-K",
        summary: "wide residual network that standardises every image, such as mma-wrn-28-4",
        source: "MMA, Ding et al. 2020, arXiv:1812.02637; BorealisAI/advertorch",
        version: 2,
    },
];

/// Builds a network by name for images of `image` = [channels, height, width], in f32.
pub fn build(name: &str, image: [usize; 3], classes: usize, random: &Stream) -> Result<Network, ModelError> {
    build_in(DType::F32, name, image, classes, random)
}

/// Builds a network by name in `f32`, on a device. Its parameters begin as the same numbers everywhere.
pub fn build_on(
    device: &Device,
    name: &str,
    image: [usize; 3],
    classes: usize,
    random: &Stream,
) -> Result<Network, ModelError> {
    make((DType::F32, device), name, image, classes, random)
}

/// Builds a network by name in `f32` or `f64`.
pub fn build_in(
    dtype: DType,
    name: &str,
    image: [usize; 3],
    classes: usize,
    random: &Stream,
) -> Result<Network, ModelError> {
    make((dtype, &Device::Cpu), name, image, classes, random)
}

fn make(
    (dtype, device): (DType, &Device),
    name: &str,
    image: [usize; 3],
    classes: usize,
    random: &Stream,
) -> Result<Network, ModelError> {
    let version = check(name, image, classes)?;
    let mut make = Builder::new(random, dtype, device);
    let body: Arc<dyn Body> = match name {
        "tiny-cnn" => Arc::new(TinyCnn::new(&mut make, image, classes)?),
        "small-cnn" => Arc::new(SmallCnn::new(&mut make, image, classes)?),
        "lenet5" => Arc::new(LeNet5::new(&mut make, image, classes)?),
        "resnet18" => Arc::new(ResNet18::new(&mut make, image, classes)?),
        _ => {
            let (form, size) = wide_resnet(name)?;
            Arc::new(WideResNet::new(&mut make, form, size, image, classes)?)
        }
    };
    let place = (dtype, device.clone());
    Ok(Network::new(name, version, image, classes, place, make, body))
}

/// Whether a network of that name can classify such images, without building it. Returns its version.
pub fn check(name: &str, image: [usize; 3], classes: usize) -> Result<u32, ModelError> {
    let entry = |name: &str| ENTRIES.iter().find(|entry| entry.name == name);
    let known = match entry(name) {
        Some(entry) => Some(entry),
        None => match wide_resnet(name)?.0 {
            Form::Mart => entry("wrn-D-K"),
            Form::Mma => entry("mma-wrn-D-K"),
        },
    };
    let refuse = |reason: &str| {
        Err(ModelError::Task {
            name: name.to_string(),
            image,
            classes,
            reason: reason.to_string(),
        })
    };
    let side = image[1].min(image[2]);
    match name {
        _ if image.contains(&0) || classes == 0 => refuse("nothing may be zero"),
        "small-cnn" if small_cnn::final_side(side) == 0 => refuse("sides must be at least 16"),
        "lenet5" if side < 4 => refuse("sides must be at least 4"),
        _ => Ok(known.ok_or_else(|| unknown(name))?.version),
    }
}

/// `wrn-D-K` and `mma-wrn-D-K`.
fn wide_resnet(name: &str) -> Result<(Form, [usize; 2]), ModelError> {
    let (form, size) = match (name.strip_prefix("wrn-"), name.strip_prefix("mma-wrn-")) {
        (Some(size), _) => (Form::Mart, size),
        (_, Some(size)) => (Form::Mma, size),
        _ => return Err(unknown(name)),
    };
    let numbers = size.split_once('-');
    let numbers = numbers.and_then(|(depth, widen)| Some((depth.parse::<usize>().ok()?, widen.parse::<usize>().ok()?)));
    let Some((depth, widen)) = numbers else {
        return Err(unknown(name));
    };
    let refuse = |reason: &str| {
        Err(ModelError::Size {
            name: name.to_string(),
            reason: reason.to_string(),
        })
    };
    if depth < 10 || !(depth - 4).is_multiple_of(6) {
        return refuse("the depth must be 6n + 4: 10, 16, 22, 28, 34, …");
    }
    if depth > 1000 || widen == 0 || widen > 100 {
        return refuse("the depth may be at most 1000 and the width 1 to 100");
    }
    Ok((form, [depth, widen]))
}

fn unknown(name: &str) -> ModelError {
    let examples = ["wrn-34-10", "wrn-28-10", "wrn-28-4", "wrn-10-2", "mma-wrn-28-4"];
    let names = ENTRIES.iter().map(|entry| entry.name).chain(examples);
    let nearest = names
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity > 0.75);
    ModelError::Unknown {
        name: name.to_string(),
        suggestion: nearest.map(|(_, known)| known.to_string()),
        known: ENTRIES.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", "),
    }
}
