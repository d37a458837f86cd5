//! What an evaluation is given.

use std::path::Path;
use std::time::Duration;

use attacks::{Attack, Threat};
use candle_core::Device;
use datasets::Split;
use models::Classifier;
use random::Stream;

use crate::progress::Bar;

/// What is attacked, how, and on which images.
pub(crate) struct Task<'a> {
    /// The network on which images are made, if not the target.
    pub(crate) source: Option<&'a dyn Classifier>,
    /// The network that is evaluated on them.
    pub(crate) target: &'a dyn Classifier,
    pub(crate) attack: &'a dyn Attack,
    pub(crate) threat: &'a Threat,
    pub(crate) split: &'a Split,
    pub(crate) indices: &'a [usize],
    pub(crate) random: &'a Stream,
    pub(crate) device: &'a Device,
    pub(crate) bar: &'a Bar,
    pub(crate) scrutiny: Scrutiny,
    /// Where its progress is saved; by default nowhere.
    pub(crate) saves: Option<Saves<'a>>,
    /// Of how many images, from the first, the attacked ones are kept.
    pub(crate) keep_images: usize,
}

/// What an evaluation checks beyond the rules for its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scrutiny {
    /// Nothing: an evaluation during training.
    Count,
    /// Attacked images are classified again, in other batches.
    Again,
    /// The network itself is examined as well, on the clean images.
    Network,
}

/// Where an evaluation is saved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saves<'a> {
    pub(crate) file: &'a Path,
    /// The key of the evaluation cell.
    pub(crate) key: &'a str,
    /// Time between two saves: a kill loses at most this much work, plus one attack on one batch.
    pub(crate) every: Duration,
}
