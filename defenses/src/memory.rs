//! What a defense keeps from step to step.

use std::collections::BTreeMap;

/// What a defense remembers of each training example from step to step: named columns, one value
/// per example.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Column by name; each as long as the training split.
    pub columns: BTreeMap<String, Vec<f32>>,
}
