//! A network in training as a list of launches: the forward pass with the batch's statistics, and the way back to the
//! gradients of parameters and images.
//!
//! Batch normalisation, the sum with a residual and ReLU are one pass over the numbers, and so are their gradients.
//! Every buffer has its place before anything runs; what the way back has read is room for what it still writes.

mod backward;
mod forward;
mod program;
mod regions;
mod writer;

pub(crate) use program::Program;
pub(crate) use regions::Bases;
pub(crate) use writer::Variant;
