//! Evaluates a checkpoint under an attack.

mod batch;
mod checks;
mod evaluate;
mod examine;
mod logits;
mod outcome;
mod saves;
mod task;
mod warnings;

pub(crate) use self::batch::{batch, set_batch};
pub(crate) use self::checks::{SLACK, untouched};
pub(crate) use self::evaluate::{evaluate, query_budget};
pub(crate) use self::logits::predictions;
pub(crate) use self::outcome::Evaluated;
pub(crate) use self::task::{Saves, Scrutiny, Task};
