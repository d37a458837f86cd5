//! A frozen network as a list of launches: buffers laid out once, parameters folded in place, then forward pass,
//! backward pass and attack step without a decision left.

mod attack;
mod backward;
mod forward;
mod parameters;
mod program;
mod regions;
mod writer;

pub(crate) use attack::{AttackStep, Staging};
pub(crate) use parameters::{Parameters, sources};
pub(crate) use program::Program;
pub(crate) use regions::Bases;
