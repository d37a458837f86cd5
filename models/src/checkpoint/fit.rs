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
    /// Entries the file may lack, because the network's output does not depend on them: `sub_block1` of
    /// wide residual networks, kept as it was.
    pub kept: Vec<String>,
}

impl Checkpoint {
    /// Loads all parameters and running statistics of `network`. Entries named in `ignore` are left out; any other entry the network does not have is an error, since it may belong to a deeper
    /// network or to a normalisation of the images. Nothing is changed on an error.
    ///
    /// # Errors
    /// [`ModelError::State`] with every name that is missing or unknown, every shape that differs, and
    /// every entry that is NaN or infinite or an integer where numbers are trained.
    pub fn load_into(&self, network: &Network, ignore: &[String]) -> Result<Loaded, ModelError> {
        let mut state = self.tensors.clone();
        let mut loaded = Loaded::default();
        let mut problems = Vec::new();
        let mut other = self.other.clone();
        for name in ignore {
            let known = other.iter().position(|entry| entry == name).map(|at| other.remove(at));
            if state.remove(name).is_none() && known.is_none() {
                problems.push(format!("`{name}` is to be ignored, but is not there"));
            }
            loaded.ignored.push(name.clone());
        }
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
        problems.extend(network.misfits(&state));
        if !problems.is_empty() {
            let name = network.name().to_string();
            return Err(ModelError::State { name, problems });
        }
        network.load_state(&state)?;
        Ok(loaded)
    }
}
