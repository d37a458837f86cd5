//! The operations as Candle sees them.
//!
//! Operands are contiguous and f32; the functions that call these have
//! checked shapes.

mod convolution;
mod linear;
mod logits;
mod norm;
mod operand;
mod pool;
mod steps;
mod sums;

pub(crate) use convolution::conv2d;
pub(crate) use linear::linear;
pub(crate) use logits::{cross_entropy, log_softmax};
pub(crate) use norm::batch_norm;
pub(crate) use operand::{at, card, made, takes};
pub(crate) use pool::{avg_pool2d, max_pool2d};
pub(crate) use steps::{crop_flip, draws, sgd_step, sign_step};
pub(crate) use sums::{add_bias, add_relu, relu};
