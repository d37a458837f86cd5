//! What an attack returns.

use candle_core::Tensor;

use crate::Cost;

/// What an attack found.
#[derive(Debug, Clone)]
pub struct Perturbed {
    /// Adversarial images `[B, C, H, W]`, detached.
    pub images: Tensor,
    /// What it cost.
    pub cost: Cost,
    /// How many examples ever met a loss gradient that was exactly zero in every pixel.
    pub zero_gradients: u64,
    /// The queries of each example; `None` for attacks that follow gradients. The share of examples with `until_success`
    /// at most q is the attack's success rate after q queries.
    pub queries: Option<Vec<Queries>>,
}

/// The queries of an attack on one example. A query is one forward pass of one image. The pass of the clean image is not
/// counted, since the attacker has chosen that image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queries {
    /// Total number of queries.
    pub asked: u64,
    /// The number of queries until an image was misclassified; 0: the clean image is; `None`: none was.
    pub until_success: Option<u64>,
}

impl Queries {
    /// No queries yet, for each of `examples` examples.
    pub(crate) fn start(examples: usize) -> Vec<Self> {
        vec![Self::default(); examples]
    }
}
