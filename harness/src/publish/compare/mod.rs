//! Checks whether results changed by more than chance.
//!
//! Cells are matched by name. For each cell, each attack's mean over defenses and each defense's mean over
//! attacks, the means over seeds before and after are compared:
//!
//! difference = mean(after) − mean(before), tolerance = t(α/m, ν) · s · √(1/n₁ + 1/n₂)
//!
//! where n₁ and n₂ count the seeds, s is the standard deviation over the baseline's seeds, ν = n₁ − 1, m is the
//! number of such comparisons (Bonferroni), and α bounds the probability that a mere change of seeds is flagged
//! anywhere. Seeds are what must vary: two trainings on two processors round otherwise and drift apart like
//! two seeds, so equal seeds are not taken for equal networks, as McNemar's test over images would.
//! A baseline of fewer than six seeds says little about s; then the binomial deviation over `n` images is used if
//! it is larger, √(p(1 − p)/n), with the normal quantile. s is never taken for less than one image.
//!
//! The means are what finds small, systematic changes: an attack that has lost half its steps moves one image
//! in a hundred of every network, and the noise of single networks averages out.

mod baseline;
mod blind;
#[expect(clippy::module_inception, reason = "the function that everything around it serves")]
mod compare;
mod comparison;
mod csv;
mod draft;
mod junit;
mod read;
mod report;
mod rules;
mod verdict;

pub(crate) use self::baseline::{rewrite, update};
pub(crate) use self::compare::compare;
pub(crate) use self::comparison::Comparison;
pub(crate) use self::junit::junit;
pub(crate) use self::read::read;
pub(crate) use self::report::{Shown, markdown, text};
pub(crate) use self::rules::rules;
