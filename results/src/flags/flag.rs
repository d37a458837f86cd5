//! The signs, and what each of them means.

use std::collections::BTreeSet;

use crate::table::table;
use crate::words::{Checkpoint, words};

words! {
    /// A sign that a number may be less meaningful than it seems.
    pub enum Flag {
        /// Gradients are zero in every pixel.
        ZeroGradients = "zero-gradients",
        /// Gradients of cross entropy are too small to follow.
        VanishingGradients = "vanishing-gradients",
        /// The network answers at random.
        RandomOutput = "random-output",
        /// The network ends in a softmax.
        SoftmaxOutput = "softmax-output",
        /// Images survive an attack without bound.
        SurvivesUnbounded = "survives-unbounded",
        /// PGD breaks more than APGD.
        PgdBelowApgd = "pgd-below-apgd",
        /// An attack without gradients breaks more than those with.
        BlackBoxBelowWhiteBox = "black-box-below-white-box",
        /// A larger radius breaks no more.
        NotFallingWithEpsilon = "not-falling-with-epsilon",
        /// More steps break less.
        NotFallingWithSteps = "not-falling-with-steps",
        /// Cross entropy breaks much less than the margin.
        CrossEntropyGap = "cross-entropy-gap",
    }
}

impl Flag {
    /// What it means, as a sentence.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::ZeroGradients => {
                "the loss gradient is zero at images that survive, so gradient-based attacks find nothing there"
            }
            Self::VanishingGradients => {
                "the gradient of cross entropy is too small at many images for attacks that follow it to be reliable"
            }
            Self::RandomOutput => {
                "two passes over the same images differ; the accuracy is one random draw, and attacks would have to average"
            }
            Self::SoftmaxOutput => {
                "the network returns probabilities instead of logits, which flattens the gradient of every loss"
            }
            Self::SurvivesUnbounded => {
                "images survive an attack that may change them without limit, so the attack does not work here"
            }
            Self::PgdBelowApgd => "PGD breaks more images than APGD, so APGD's search gets stuck",
            Self::BlackBoxBelowWhiteBox => {
                "an attack without gradients breaks more images than every attack with gradients: gradients are masked"
            }
            Self::NotFallingWithEpsilon => {
                "a larger radius does not break more images, as it does for every working attack"
            }
            Self::NotFallingWithSteps => "more steps break fewer images",
            Self::CrossEntropyGap => {
                "attacks on the margin break far more images than this attack on cross entropy, which overstates robustness"
            }
        }
    }
}

table! {
    /// A flag on an evaluation.
    #[derive(Debug, Clone, PartialEq)]
    pub struct RaisedFlag {
        /// Key of the evaluation cell whose number is likely too high.
        pub cell: String,
        /// Name of the data set.
        pub dataset: String,
        /// Name of the network.
        pub network: String,
        /// Label of the defense.
        pub defense: String,
        /// Seed of the training.
        pub seed: u64,
        /// The checkpoint attacked.
        pub checkpoint: Checkpoint,
        /// Label of the attack.
        pub attack: String,
        /// The sign.
        pub flag: Flag,
        /// Key of the evaluation that it was compared with.
        pub other: Option<String>,
        /// The numbers behind it.
        pub detail: String,
    }
}

/// The flags of a run in the order of their letters: the first is marked a, the next b, wherever the run is shown. Those
/// that only a worst case carries come last.
pub fn letters(raised: &[RaisedFlag]) -> Vec<Flag> {
    let of = |own: bool| {
        let wanted = raised.iter().filter(|one| one.is_of_a_cell() == own);
        wanted.map(|one| one.flag).collect::<BTreeSet<Flag>>()
    };
    let (own, worst) = (of(true), of(false));
    own.iter().chain(worst.difference(&own)).copied().collect()
}

impl RaisedFlag {
    /// Whether it is on an evaluation rather than on the worst case of several, whose key is a list of keys.
    fn is_of_a_cell(&self) -> bool {
        !self.cell.contains(' ')
    }
}
