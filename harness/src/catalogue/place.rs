//! The settings in which defaults are shown.

use attacks::{Family, Norm, Setting, Threat};
use serde_json::{Map, Value};

/// A setting that represents many: defaults depend on the data set's kind, the norm and the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) name: &'static str,
    family: Family,
    norm: Norm,
    epsilon: (u64, u64),
    network: &'static str,
}

/// The first two are listed first if they differ; the others only if they differ from those.
pub(super) const PLACES: [Place; 5] = [
    Place::new("colour", Family::Cifar, Norm::Linf, (8, 255), "resnet18"),
    Place::new("grey", Family::Mnist, Norm::Linf, (3, 10), "small-cnn"),
    Place::new("wide networks", Family::Cifar, Norm::Linf, (8, 255), "wrn-34-10"),
    Place::new("colour, l2", Family::Cifar, Norm::L2, (1, 2), "resnet18"),
    Place::new("grey, l2", Family::Mnist, Norm::L2, (2, 1), "small-cnn"),
];

/// What the names of the settings mean.
pub(super) const LEGEND: &str = "colour: images like CIFAR-10's, linf 8/255, resnet18; grey: like MNIST's, linf 0.3, small-cnn; \
                      l2: 0.5 in colour, 2 in grey; wide networks: wrn-34-10 in colour.";

impl Place {
    const fn new(name: &'static str, family: Family, norm: Norm, epsilon: (u64, u64), network: &'static str) -> Self {
        Self {
            name,
            family,
            norm,
            epsilon,
            network,
        }
    }

    pub(super) fn setting(self) -> Setting {
        Setting {
            family: self.family,
            threat: Threat {
                norm: self.norm,
                epsilon: attacks::Pixels::new(self.epsilon.0, self.epsilon.1),
            },
            network: self.network.to_string(),
            image: match self.family {
                Family::Cifar => [3, 32, 32],
                Family::Mnist => [1, 28, 28],
            },
            classes: 10,
        }
    }
}

pub(super) fn by_place(values: &[(Place, Value)]) -> Map<String, Value> {
    values
        .iter()
        .map(|(place, value)| (place.name.to_string(), value.clone()))
        .collect()
}

/// Every value once, with the names of its settings; a setting that agrees with its parent setting is omitted.
pub(super) fn grouped(values: &[(Place, Value)]) -> Vec<(Vec<&'static str>, Value)> {
    let at = |name: &str| {
        values
            .iter()
            .find(|(place, _)| place.name == name)
            .map(|(_, value)| value)
    };
    let mut groups: Vec<(Vec<&'static str>, Value)> = Vec::new();
    for (place, value) in values {
        let base = if place.family == Family::Cifar {
            "colour"
        } else {
            "grey"
        };
        if place.name != base && at(base) == Some(value) {
            continue;
        }
        match groups.iter_mut().find(|(_, other)| other == value) {
            Some((names, _)) => names.push(place.name),
            None => groups.push((vec![place.name], value.clone())),
        }
    }
    groups
}
