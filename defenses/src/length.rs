//! How long to train.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// Passes over the training examples.
    Epochs(u64),
    /// Optimizer steps.
    Steps(u64),
}
