//! Checks whether a run is complete, unmodified and consistent, and whether its bytes can be computed again.

mod check;
mod examples;
mod places;
mod recompute;
mod rules;
mod run;

pub(crate) use self::check::Audit;
pub(crate) use self::examples::{ExamplesRequest, check_saved, verify_examples};
pub(crate) use self::recompute::{RecomputeRequest, recompute};
