//! The networks that are timed, and how they are attacked.

use anyhow::{Result, bail};
use attacks::{Family, Norm, Pixels, Setting, Threat};

/// A network with the batch and the attack it is timed with.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// Its name.
    pub network: &'static str,
    /// Channels, height, width.
    pub image: [usize; 3],
    /// Examples of a step, unless asked otherwise.
    pub batch: usize,
    /// Whose protocol its data follow.
    pub family: Family,
    epsilon: [u64; 2],
    step_size: [u64; 2],
}

/// Images of colour are attacked as in the released code of MART and TRADES, digits at the usual radius with steps of
/// a quarter of it.
pub const SUBJECTS: [Subject; 3] = [
    Subject {
        network: "small-cnn",
        image: [1, 28, 28],
        batch: 128,
        family: Family::Mnist,
        epsilon: [3, 10],
        step_size: [75, 1000],
    },
    Subject {
        network: "resnet18",
        image: [3, 32, 32],
        batch: 128,
        family: Family::Cifar,
        epsilon: [31, 1000],
        step_size: [7, 1000],
    },
    Subject {
        network: "wrn-34-10",
        image: [3, 32, 32],
        batch: 16,
        family: Family::Cifar,
        epsilon: [31, 1000],
        step_size: [7, 1000],
    },
];

impl Subject {
    /// The subject with that network.
    pub fn named(name: &str) -> Result<Self> {
        match SUBJECTS.iter().find(|subject| subject.network == name) {
            Some(subject) => Ok(*subject),
            None => {
                let known = SUBJECTS.map(|subject| subject.network).join(", ");
                bail!("no network to time is called `{name}`; known: {known}")
            }
        }
    }

    /// The ball in which it is attacked.
    pub fn threat(&self) -> Threat {
        Threat {
            norm: Norm::Linf,
            epsilon: Pixels::new(self.epsilon[0], self.epsilon[1]),
        }
    }

    /// The length of a step of its attack.
    pub fn step_size(&self) -> Pixels {
        Pixels::new(self.step_size[0], self.step_size[1])
    }

    /// What a defense's defaults depend on.
    pub fn setting(&self) -> Setting {
        Setting {
            family: self.family,
            threat: self.threat(),
            network: self.network.to_string(),
            image: self.image,
            classes: 10,
        }
    }
}
