//! Rampart's program: one YAML matrix of data sets × networks × defenses × attacks × seeds, trained, attacked, stored and
//! typeset by one command.
//!
//! [`Harness`] is the program, with methods of your own if you like.

mod cli;

mod audit;

mod catalogue;
mod publish;
mod schedule;

mod compute;

mod table_specs;

#[doc(hidden)]
pub mod fuzzing;

mod device;
mod exit;
mod failure;
mod panics;
mod program;
mod progress;
mod stderr;
mod units;

pub use crate::exit::Exit;
pub use crate::program::Harness;
