//! From a matrix to a plan: the grid expanded, every default filled, every mistake found.

mod attack;
mod batches;
mod block;
mod checks;
mod evaluation;
mod recipe;
mod resolver;
mod scope;
mod sweep;
mod teacher;
mod training;
mod transfer;

pub use self::recipe::written_recipe;
pub use self::resolver::{Digests, resolve};
