//! Networks by name.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use random::Stream;

use crate::body::Body;
use crate::builder::Builder;
use crate::classifier::{Classifier, Mode};
use crate::error::ModelError;
use crate::lenet5::LeNet5;
use crate::named::Named;
use crate::network::Network;
use crate::resnet18::ResNet18;
use crate::small_cnn::SmallCnn;
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

/// The networks a matrix can name.
#[derive(Debug, Clone)]
pub struct Networks {
    families: Vec<Family>,
}

/// Networks that differ in size alone.
#[derive(Debug, Clone, Copy)]
struct Family {
    entry: Entry,
    /// The sizes in a name, if the name is of this family.
    parse: fn(&Entry, &str) -> Option<Result<Size, ModelError>>,
    check: fn([usize; 3], usize) -> Result<(), String>,
    make: Make,
}

/// Depth and width, for families that have them.
type Size = [usize; 2];
type Make = fn(&mut Builder, Size, [usize; 3], usize) -> candle_core::Result<Arc<dyn Body>>;

/// A named network for a given task, not built yet.
#[derive(Debug, Clone)]
pub struct Architecture {
    name: String,
    version: u32,
    size: Size,
    image: [usize; 3],
    classes: usize,
    make: Make,
}

impl Networks {
    /// The networks of this crate.
    pub fn builtin() -> Self {
        let mut networks = Self { families: Vec::new() };
        networks.add::<TinyCnn>();
        networks.add::<SmallCnn>();
        networks.add::<LeNet5>();
        networks.add::<ResNet18>();
        networks.families.extend([
            Family {
                entry: Entry {
                    name: "wrn-D-K",
                    summary: "wide residual network of depth D and width K, such as wrn-34-10 or wrn-28-10",
                    source: "Zagoruyko and Komodakis 2016, arXiv:1605.07146; YisenWang/MART wideresnet.py",
                    version: 2,
                },
                parse: |_, name| size(name, name.strip_prefix("wrn-")?),
                check: |_, _| Ok(()),
                make: |make, size, image, classes| {
                    Ok(Arc::new(WideResNet::new(make, Form::Mart, size, image, classes)?))
                },
            },
            Family {
                entry: Entry {
                    name: "mma-wrn-D-K",
                    summary: "wide residual network that standardises every image, such as mma-wrn-28-4",
                    source: "MMA, Ding et al. 2020, arXiv:1812.02637; BorealisAI/advertorch",
                    version: 2,
                },
                parse: |_, name| size(name, name.strip_prefix("mma-wrn-")?),
                check: |_, _| Ok(()),
                make: |make, size, image, classes| {
                    Ok(Arc::new(WideResNet::new(make, Form::Mma, size, image, classes)?))
                },
            },
        ]);
        networks
    }

    /// Adds a network.
    ///
    /// # Panics
    /// If the name is taken, or is not one that folders and labels can carry.
    pub fn add<N: Named>(&mut self) {
        suggest::check_name("network", N::NAME).unwrap_or_else(|message| panic!("{message}"));
        assert!(self.find(N::NAME).is_none(), "two networks are called `{}`", N::NAME);
        self.families.push(Family {
            entry: Entry {
                name: N::NAME,
                summary: N::SUMMARY,
                source: N::SOURCE,
                version: N::VERSION,
            },
            parse: |entry, name| (name == entry.name).then_some(Ok([0, 0])),
            check: N::check,
            make: |make, _, image, classes| Ok(Arc::new(N::new(make, image, classes)?)),
        });
    }

    /// One line for each network or family, in the order in which they were added.
    pub fn entries(&self) -> Vec<Entry> {
        self.families.iter().map(|family| family.entry).collect()
    }

    fn find(&self, name: &str) -> Option<(Family, Result<Size, ModelError>)> {
        let parsed = |family: &Family| Some((*family, (family.parse)(&family.entry, name)?));
        self.families.iter().find_map(parsed)
    }

    /// The network of that name for images of `image` = [channels, height, width], if it can classify them.
    pub fn find_for(&self, name: &str, image: [usize; 3], classes: usize) -> Result<Architecture, ModelError> {
        let (family, size) = self.find(name).ok_or_else(|| self.unknown(name))?;
        let size = size?;
        let checked = if image.contains(&0) || classes == 0 {
            Err("every size must be at least 1".to_string())
        } else {
            (family.check)(image, classes)
        };
        checked.map_err(|reason| ModelError::Task {
            name: name.to_string(),
            image,
            classes,
            reason,
        })?;
        Ok(Architecture {
            name: name.to_string(),
            version: family.entry.version,
            size,
            image,
            classes,
            make: family.make,
        })
    }

    fn unknown(&self, name: &str) -> ModelError {
        let examples = ["wrn-34-10", "wrn-28-10", "wrn-28-4", "wrn-10-2", "mma-wrn-28-4"];
        let names = self.families.iter().map(|family| family.entry.name).chain(examples);
        let known: Vec<_> = self.families.iter().map(|family| family.entry.name).collect();
        ModelError::Unknown {
            name: name.to_string(),
            suggestion: suggest::nearest(name, names).map(str::to_string),
            known: known.join(", "),
        }
    }
}

impl Architecture {
    /// The name it was found by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Increases whenever the same parameters would give other logits.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether a training step can take one image alone. No: a batch normalisation sees one pixel of it, which has no
    /// variance. Found out by a forward pass of a new network.
    pub fn trains_on_one_image(&self) -> bool {
        let pass = || -> Result<(), ModelError> {
            let network = self.build(&Device::Cpu, &Stream::new(0))?;
            let [channels, height, width] = self.image;
            let image = Tensor::zeros((1, channels, height, width), DType::F32, &Device::Cpu)?;
            network.logits(&image, Mode::BatchStatistics)?;
            Ok(())
        };
        pass().is_ok()
    }

    /// Builds it in `f32` on a device. The initial parameters are the same on every device.
    pub fn build(&self, device: &Device, random: &Stream) -> Result<Network, ModelError> {
        self.build_in(DType::F32, device, random)
    }

    /// Builds it in `f32` or `f64`.
    pub fn build_in(&self, dtype: DType, device: &Device, random: &Stream) -> Result<Network, ModelError> {
        let mut make = Builder::new(random, dtype, device);
        let body = (self.make)(&mut make, self.size, self.image, self.classes)?;
        let place = (dtype, device.clone());
        Ok(Network::new(
            &self.name,
            self.version,
            self.image,
            self.classes,
            place,
            make,
            body,
        ))
    }
}

/// Builds a network of this crate by name for images of `image` = [channels, height, width], in `f32` on the CPU.
pub fn build(name: &str, image: [usize; 3], classes: usize, random: &Stream) -> Result<Network, ModelError> {
    Networks::builtin()
        .find_for(name, image, classes)?
        .build(&Device::Cpu, random)
}

/// As [`build`], on a device.
pub fn build_on(
    device: &Device,
    name: &str,
    image: [usize; 3],
    classes: usize,
    random: &Stream,
) -> Result<Network, ModelError> {
    Networks::builtin()
        .find_for(name, image, classes)?
        .build(device, random)
}

/// Depth and width out of `D-K`. `None`: it is not of that form.
fn size(name: &str, size: &str) -> Option<Result<Size, ModelError>> {
    let refuse = |reason: &str| {
        Some(Err(ModelError::Size {
            name: name.to_string(),
            reason: reason.to_string(),
        }))
    };
    let (depth, widen) = size.split_once('-')?;
    let (depth, widen) = (depth.parse::<usize>().ok()?, widen.parse::<usize>().ok()?);
    if depth < 10 || !(depth - 4).is_multiple_of(6) {
        return refuse("the depth must be 6n + 4: 10, 16, 22, 28, 34, …");
    }
    if depth > 1000 || widen == 0 || widen > 100 {
        return refuse("the depth may be at most 1000 and the width 1 to 100");
    }
    let parameters = parameters(depth, widen);
    if parameters > MOST_PARAMETERS {
        let billions = parameters as f64 / 1e9;
        // Parameters, gradients and momentum, in f32.
        let gigabytes = parameters as f64 * 12.0 / 1e9;
        return refuse(&format!(
            "it would have {billions:.1} billion parameters, {gigabytes:.0} GB in training before any image; at most 1 \
             billion are allowed"
        ));
    }
    Some(Ok([depth, widen]))
}

/// Networks above this number fit in no machine that trains them: wrn-106-16 has 0.4 billion.
const MOST_PARAMETERS: u64 = 1_000_000_000;

/// The weights of a wide residual network's 3 × 3 convolutions, nearly all that it has.
fn parameters(depth: usize, widen: usize) -> u64 {
    let (blocks, widen) = ((depth as u64 - 4) / 6, widen as u64);
    let mut inputs = 16;
    let mut total = 0;
    for group in 0..3 {
        let outputs = (16 * widen) << group;
        total += 9 * inputs * outputs + 9 * outputs * outputs * (2 * blocks - 1);
        inputs = outputs;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_no_machine_holds_is_refused_with_its_size() {
        let networks = Networks::builtin();
        for name in ["wrn-1000-100", "mma-wrn-1000-100", "wrn-34-100"] {
            let error = networks.find_for(name, [3, 32, 32], 10).unwrap_err().to_string();
            assert!(
                error.contains("billion parameters") && error.contains("GB in training"),
                "{error}"
            );
        }
        for name in ["wrn-106-16", "wrn-70-16", "wrn-34-20"] {
            assert!(networks.find_for(name, [3, 32, 32], 10).is_ok(), "{name}");
        }
    }
}
