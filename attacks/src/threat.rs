//! The threat model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Pixels;

/// The norm that measures a perturbation of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// The largest absolute change of a pixel.
    Linf,
    /// The Euclidean length.
    L2,
}

impl std::fmt::Display for Norm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Linf => "linf",
            Self::L2 => "l2",
        })
    }
}

/// The perturbations an adversary may make: a ball around each image, cut to `[0, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Threat {
    /// How a perturbation is measured.
    pub norm: Norm,
    /// The radius of the ball. Under L∞ at most 1.
    pub epsilon: Pixels,
}
