//! Networks as lists of launches, written once for each size of batch.

mod batch;
pub(crate) mod frozen;
pub(crate) mod trained;
