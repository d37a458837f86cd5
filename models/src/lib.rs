//! The networks of the adversarial-training literature, under their authors' parameter names.
//!
//! ```
//! use models::{Classifier, Mode};
//! use random::Stream;
//!
//! let network = models::build("tiny-cnn", [1, 8, 8], 10, &Stream::new(0))?;
//! let images = candle_core::Tensor::zeros((2, 1, 8, 8), candle_core::DType::F32, &candle_core::Device::Cpu)?;
//! assert_eq!(network.logits(&images, Mode::Eval)?.dims(), [2, 10]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod classifier;

mod body;
mod builder;
mod layers;
mod parameter;

mod error;
mod named;
mod network;
mod registry;

mod checkpoint;

mod lenet5;
mod resnet18;
mod small_cnn;
mod tiny_cnn;
mod wide_resnet;

#[cfg(test)]
mod reference_tests;

pub use body::Body;
pub use builder::{Builder, Init};
pub use checkpoint::{Checkpoint, CheckpointError, Format, Loaded};
pub use classifier::{Classifier, Dropout, FromModule, Mode};
pub use error::ModelError;
pub use layers::{BatchNorm, Convolution, Linear, Pass, dropout_half, mean_per_channel};
pub use named::Named;
pub use network::Network;
pub use parameter::{Buffer, Parameter, Role};
pub use registry::{Architecture, Entry, Networks, build, build_on};
