//! How a network describes itself, layer by layer.

use candle_core::{Result, Tensor};

use crate::activation::Activation;
use crate::batch_norm::BatchNorm;

/// An intermediate result of [`Layers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value(pub(crate) usize);

/// Takes the layers of a network in their order.
pub trait Layers {
    /// A convolution of `input`, then in this order, each if it is given: bias, batch normalisation, sum with
    /// `residual`, activation. `shape` is stride and padding.
    #[allow(clippy::too_many_arguments)]
    fn convolution(
        &mut self,
        input: Value,
        weight: &Tensor,
        bias: Option<&Tensor>,
        shape: (usize, usize),
        norm: Option<&BatchNorm>,
        residual: Option<Value>,
        activation: Activation,
    ) -> Result<Value>;

    /// A fully connected layer over the flattened `input`.
    fn linear(&mut self, input: Value, weight: &Tensor, bias: Option<&Tensor>, activation: Activation)
    -> Result<Value>;

    /// Batch normalisation, then ReLU.
    fn norm_relu(&mut self, input: Value, norm: &BatchNorm) -> Result<Value>;

    /// The maximum of every `size` × `size` window; `size` is at most [`LARGEST_POOL`](crate::LARGEST_POOL).
    ///
    /// # Errors
    /// If the window is larger than that, or than the image.
    fn max_pool(&mut self, input: Value, size: usize) -> Result<Value>;

    /// The mean of every channel.
    fn mean_per_channel(&mut self, input: Value) -> Value;

    /// In training with dropout, each number times its factor; `layer` tells several dropouts apart.
    fn dropout(&mut self, input: Value, layer: u64) -> Value;
}
