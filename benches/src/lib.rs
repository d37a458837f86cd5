//! The workloads that are timed: each is a step that can be repeated any number of times.
//!
//! | workload | one step |
//! | --- | --- |
//! | `forward` | logits of the frozen network |
//! | `attack-step` | cross entropy of the frozen network, its gradient to the images, sign step, projection |
//! | `train-step` | logits in training mode, mean cross entropy, parameter gradients, SGD |
//! | `at-step`, `trades-step`, `mart-step` | the defense's objective with its PGD-10, parameter gradients, SGD |
//!
//! `forward` and `attack-step` freeze the network once, before the clock starts: an attack of many steps
//! freezes once as well. The whole steps of a defense freeze inside the clock, once a step.
//!
//! Attacks on a network out of a file ([`Evaluation`]) are timed and compared by `peers/auto_attack.sh`.
//!
//! Images and parameters of the workloads follow a closed formula ([`formula`]), the same here and in
//! `peers/networks.py`, so that a check can show that both sides compute the same.

pub mod formula;
pub mod memory;

mod evaluation;
mod subject;
mod workload;

pub use evaluation::{Evaluation, Length, Outcome, Stage};
pub use subject::{SUBJECTS, Subject};
pub use workload::{Bench, Burst, WORKLOADS, Workload};
