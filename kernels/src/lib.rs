//! Neural-network operations for Candle, with hand-written gradients.
//!
//! Each function takes and returns Candle tensors, `f32` or `f64`, images as `[B, C, H, W]`. Gradients
//! are computed only for arguments that are tracked: an attack pays for no weight gradient, and
//! training on constant images for no image gradient.
//!
//! Results do not depend on the number of threads, bit for bit, and a row of a batch does not depend
//! on the other rows (batch statistics aside).

mod activation;
mod check;
mod element;
mod frame;
mod lanes;
mod processor;
mod product;
mod sum;
mod tile;
mod transpose;
mod wide;

mod average_pool;
mod batch_norm;
mod bias;
mod convolution;
mod descent;
mod linear;
mod max_pool;
mod relu;
mod sign_step;
mod softmax;

mod graph;

pub mod ascent;
pub mod device;
pub mod frozen;
pub mod resident;
pub mod trained;

#[cfg(any(feature = "cuda", test))]
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "the tests use what they compare"))]
mod cuda;

mod threads;

pub use activation::Activation;
pub use average_pool::avg_pool2d;
pub use batch_norm::{BatchNorm, Statistics, batch_norm};
pub use bias::add_bias;
pub use convolution::{conv2d, conv2d_with_bias};
pub use descent::{SgdStep, sgd_step};
pub use graph::{Layers, Recording, Value};
pub use linear::linear;
pub use max_pool::{LARGEST_POOL, max_pool2d};
pub use processor::{Instructions, check_instructions, instructions};
pub use relu::{add_relu, relu};
pub use sign_step::sign_step;
pub use softmax::{cross_entropy, log_softmax};
pub use threads::keep_candle_on_one_thread;
