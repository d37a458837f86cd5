//! Flags that follow from one evaluation alone.

use super::compare::{FEW, percent};
use super::flag::Flag;
use crate::row::Row;
use crate::words::Kind;

/// The share of images at which gradients may be tiny: a network may be very sure of some images.
const SOME: f64 = 0.05;

/// The flags that follow from one finished evaluation alone.
pub(crate) fn of_row(row: &Row) -> Vec<Flag> {
    let mut found = Vec::new();
    let (Some(n), Some(correct)) = (row.n, row.n_correct) else {
        return found;
    };
    let above = |count: Option<u64>, share: f64| count.is_some_and(|count| count as f64 > share * n as f64);
    let stalled = match row.kind {
        Kind::Natural => row.zero_gradients,
        // A margin attack stops once it has succeeded. At least this many images met zero gradients and survive.
        Kind::WhiteBox => row.zero_gradients.map(|zeros| (zeros + correct).saturating_sub(n)),
        Kind::Query | Kind::Transfer => None,
    };
    if above(stalled, FEW) {
        found.push(Flag::ZeroGradients);
    }
    if above(row.vanishing_gradients, SOME) {
        found.push(Flag::VanishingGradients);
    }
    if row.random_outputs.is_some_and(|images| images > 0) {
        found.push(Flag::RandomOutput);
    }
    if n > 0 && row.softmax_outputs == Some(n) {
        found.push(Flag::SoftmaxOutput);
    }
    let unbounded = row.norm.as_deref() == Some("linf") && row.epsilon_value.is_some_and(|epsilon| epsilon >= 1.0);
    if row.kind == Kind::WhiteBox && unbounded && above(Some(correct), FEW) {
        found.push(Flag::SurvivesUnbounded);
    }
    found
}

/// The numbers behind a flag.
pub(super) fn detail(row: &Row, flag: Flag) -> String {
    let of_n = |count: Option<u64>| format!("{} of {} images", count.unwrap_or(0), row.n.unwrap_or(0));
    match flag {
        Flag::ZeroGradients => of_n(row.zero_gradients),
        Flag::VanishingGradients => of_n(row.vanishing_gradients),
        Flag::RandomOutput => of_n(row.random_outputs),
        Flag::SoftmaxOutput => of_n(row.softmax_outputs),
        _ => format!("{} is left with {}", row.attack, percent(row)),
    }
}
