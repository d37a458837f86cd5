//! What every optimizer can do, and the checks of a stored state.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};
use models::Parameter;

/// An optimizer of the parameters of one network.
pub trait Descent: Send {
    /// Moves every parameter that has a gradient, at this learning rate.
    fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<()>;

    /// The state of the optimizer, for a checkpoint.
    fn state(&self) -> BTreeMap<String, Tensor>;

    /// Resumes from a [`state`](Self::state). An error names the entry that does not fit.
    fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()>;
}

/// The parameter that `KIND/NAME` names, if KIND is one of `kinds`.
pub(crate) fn owner<'a>(parameters: &'a [Parameter], key: &str, kinds: &[&str]) -> Result<(String, &'a Parameter)> {
    let split = key.split_once('/').filter(|(kind, _)| kinds.contains(kind));
    let found = split.and_then(|(_, name)| parameters.iter().find(|parameter| parameter.name == name));
    match found {
        Some(parameter) => Ok((parameter.name.clone(), parameter)),
        None => candle_core::bail!("the optimizer has no use for `{key}` in its state"),
    }
}

/// A stored tensor, if it has the parameter's shape, in its precision and on its device.
pub(crate) fn like(key: &str, tensor: &Tensor, parameter: &Parameter) -> Result<Tensor> {
    if tensor.dims() != parameter.var.dims() {
        let (found, wanted) = (tensor.dims(), parameter.var.dims());
        candle_core::bail!("the optimizer's state {key} has shape {found:?}, the parameter {wanted:?}");
    }
    tensor
        .to_dtype(parameter.var.dtype())?
        .to_device(parameter.var.device())?
        .copy()
}
