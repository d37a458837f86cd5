//! Counts of images that suggest that a network's robustness is only apparent.

use serde::{Deserialize, Serialize};

/// How many images raise each warning. `None`: not examined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Warnings {
    /// Where the gradient of cross entropy is too small to follow.
    pub(crate) vanishing_gradients: Option<u64>,
    /// Whose logits differ between two passes.
    pub(crate) random_outputs: Option<u64>,
    /// Whose logits are probabilities.
    pub(crate) softmax_outputs: Option<u64>,
}

impl std::ops::AddAssign for Warnings {
    fn add_assign(&mut self, other: Self) {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
        self.vanishing_gradients = sum(self.vanishing_gradients, other.vanishing_gradients);
        self.random_outputs = sum(self.random_outputs, other.random_outputs);
        self.softmax_outputs = sum(self.softmax_outputs, other.softmax_outputs);
    }
}
