//! A trained network for PyTorch.

mod find;
mod network;

pub(crate) use self::network::export;
