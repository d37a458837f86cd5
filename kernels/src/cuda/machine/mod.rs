//! The operations of a GPU, each as kernel launches and convolutions for whatever machine runs them.
//!
//! The card runs them through the driver, a recorder keeps them for later, and in tests an emulator runs the same
//! sequences with the same kernels on the processor.

mod argument;
mod elements;
mod form;
mod launch;
mod logits;
mod norm;
mod pool;
mod steps;

pub(crate) use argument::{Address, Arg, count};
pub(crate) use elements::*;
pub(crate) use form::{Extent, Form};
pub(crate) use launch::{Convolve, Grid, Machine, Pass};
pub(crate) use logits::*;
pub(crate) use norm::*;
pub(crate) use pool::*;
pub(crate) use steps::*;
