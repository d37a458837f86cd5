//! What a checkpoint holds.

use std::collections::BTreeMap;

use candle_core::Tensor;

/// A state dictionary as it was found in a file.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The format of the file.
    pub format: Format,
    /// Keys that led to the dictionary, such as `state_dict`; empty if it was outermost.
    pub within: Vec<String>,
    /// The prefix that was stripped from every name, such as `module.`.
    pub prefix: String,
    /// The tensors on the CPU: floating point in f32 or f64, anything else in i64.
    pub tensors: BTreeMap<String, Tensor>,
    /// Tensors of the same dictionary whose names do not begin with the prefix.
    pub beside: BTreeMap<String, Tensor>,
    /// Other copies of the network in the file, which were not picked, by their labels.
    pub apart: Vec<String>,
    /// Entries of the dictionary that are not tensors.
    pub other: Vec<String>,
    /// The text entries of a safetensors header.
    pub metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// A file that is one dictionary of tensors and nothing else.
    pub(super) fn flat(format: Format, tensors: BTreeMap<String, Tensor>) -> Self {
        Self {
            format,
            within: Vec::new(),
            prefix: String::new(),
            tensors,
            beside: BTreeMap::new(),
            apart: Vec::new(),
            other: Vec::new(),
            metadata: BTreeMap::new(),
        }
    }
}

/// The format of a file of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// safetensors.
    Safetensors,
    /// `torch.save` since PyTorch 1.6.
    Zip,
    /// `torch.save` before that.
    Legacy,
    /// `numpy.savez`.
    Npz,
}
