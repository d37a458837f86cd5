//! Computes one cell.

pub(crate) mod cost;
pub(crate) mod data;
pub(crate) mod evaluation;
pub(crate) mod external;
pub(crate) mod provenance;
pub(crate) mod recount;
pub(crate) mod row;
pub(crate) mod stopwatch;
pub(crate) mod training;
pub(crate) mod training_set;
