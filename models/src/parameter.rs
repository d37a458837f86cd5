//! The parameters and the running statistics of a network.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use candle_core::Var;

/// A trainable tensor.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name in the authors' state dictionary.
    pub name: String,
    /// Its values.
    pub var: Var,
    /// What it is for.
    pub role: Role,
}

/// What a parameter is for; optimisers may treat the roles differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Weights of a convolution or linear layer.
    Weight,
    /// Biases of a convolution or linear layer.
    Bias,
    /// Scale or shift of a batch normalisation.
    BatchNorm,
}

/// A running mean or variance: state that is not trained.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// Its name in the authors' state dictionary.
    pub name: String,
    /// Its values.
    pub var: Var,
}

/// One entry of the state dictionary.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// A parameter, by its place among the parameters.
    Parameter(usize),
    /// A running mean or variance.
    Statistic(Var),
    /// How often running statistics were updated.
    Updates(Arc<AtomicI64>),
}
