//! Every network and every checkpoint against the authors' code.

mod checkpoints;
mod described;
mod networks;
