//! Loads a state dictionary into a network.

use candle_core::DType;

use super::contents::Checkpoint;
use crate::error::ModelError;
use crate::network::Network;
use crate::wide_resnet::UNUSED;

/// What was loaded, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Entries that the caller asked to ignore.
    pub ignored: Vec<String>,
    /// Counts of averaged models, which `torch.optim.swa_utils.AveragedModel` keeps beside the average.
    pub counts: Vec<String>,
    /// Entries the file may lack, because the network's output does not depend on them: `sub_block1` of
    /// wide residual networks, kept as it was.
    pub kept: Vec<String>,
}

impl Checkpoint {
    /// Loads all parameters and running statistics of `network`. Entries named in `ignore` are left out, by their name
    /// in the file or without the prefix; `mu*` means every name that begins like that. Any other entry the network
    /// does not have is an error, since it may belong to a deeper network or to a normalisation of the images. Nothing
    /// is changed on an error.
    ///
    /// # Errors
    /// [`ModelError::State`] with every name that is missing or unknown, every shape that differs, and
    /// every entry that is NaN or infinite or an integer where numbers are trained.
    pub fn load_into(&self, network: &Network, ignore: &[String]) -> Result<Loaded, ModelError> {
        let mut rest = self.clone();
        let mut problems = Vec::new();
        let mut loaded = Loaded {
            ignored: ignore.to_vec(),
            ..Loaded::default()
        };
        for pattern in ignore {
            if !rest.leave_out(|name| matches(pattern, name)) {
                problems.push(format!("`{pattern}` is to be ignored, but is not there"));
            }
        }
        let is_count = |name: &str| name.rsplit('.').next() == Some("n_averaged");
        let inside = rest.tensors.keys().map(|name| format!("{}{name}", self.prefix));
        let names = rest.beside.keys().chain(&rest.other).cloned().chain(inside);
        loaded.counts = names.filter(|name| is_count(name)).collect();
        rest.leave_out(is_count);
        let Self {
            tensors: mut state,
            beside,
            other,
            ..
        } = rest;
        let unused = |name: &String| name.starts_with(UNUSED);
        let shapes = network.state_shapes();
        if !state.keys().any(unused) && shapes.iter().any(|(name, _)| unused(name)) {
            for (name, tensor) in network.state()? {
                if unused(&name) {
                    loaded.kept.push(name.clone());
                    state.insert(name, tensor);
                }
            }
        }
        for (name, _) in shapes.iter().filter(|(name, _)| !name.ends_with("num_batches_tracked")) {
            let Some(tensor) = state.get(name) else { continue };
            if tensor.dtype() == DType::I64 {
                problems.push(format!("`{name}` holds integers"));
                continue;
            }
            let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                problems.push(format!("`{name}` holds {value}"));
            } else if name.ends_with("running_var") && values.iter().any(|value| *value < 0.0) {
                problems.push(format!("`{name}` holds a negative variance"));
            }
        }
        problems.extend(
            other
                .iter()
                .map(|name| format!("`{}` is not a tensor", name.escape_debug())),
        );
        let unknown = beside
            .iter()
            .map(|(name, tensor)| format!("`{}` {:?} is not expected", name.escape_debug(), tensor.dims()));
        problems.extend(unknown);
        problems.extend(network.misfits(&state));
        if !problems.is_empty() {
            let name = network.name().to_string();
            return Err(ModelError::State { name, problems });
        }
        network.load_state(&state)?;
        Ok(loaded)
    }

    /// Removes the entries that `is` selects by their full name or by that without the prefix. False: there are none.
    fn leave_out(&mut self, is: impl Fn(&str) -> bool) -> bool {
        let before = self.tensors.len() + self.beside.len() + self.other.len();
        let prefix = &self.prefix;
        self.tensors
            .retain(|name, _| !is(name) && !is(&format!("{prefix}{name}")));
        self.beside.retain(|name, _| !is(name));
        self.other.retain(|name| !is(name));
        self.tensors.len() + self.beside.len() + self.other.len() < before
    }
}

/// Whether a name is the one asked for, or begins with what is before its `*`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}
