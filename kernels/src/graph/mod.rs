//! The graph of a network: its layers, recorded once, which every way of running it reads.
//!
//! A network describes itself to [`Layers`]; a [`Recording`] notes every layer down with the shape of its result and
//! the tensors of its parameters. The network frozen on a CPU (`frozen`), in training on a CPU (`trained`) and both
//! on a GPU (`cuda::program`) read this one graph: its layers, shapes and liveness. Each of them packs, folds and
//! schedules in its own way.
//!
//! A new kind of layer is a method of [`Layers`] and of [`Recording`], which infers the shape, a variant of `Layer`,
//! and an arm in each `match` over it, which the compiler lists: `kept_for_gradient` here, then packing, forward and
//! backward pass of each of the four.

mod layers;
mod liveness;
mod recording;
mod structure;
#[cfg(test)]
mod tests;

pub use layers::{Layers, Value};
pub use recording::Recording;
pub(crate) use recording::Running;
pub(crate) use structure::{Convolution, Graph, Layer, Norm};
#[cfg(any(feature = "cuda", test))]
pub(crate) use structure::{Parameter, Step};
