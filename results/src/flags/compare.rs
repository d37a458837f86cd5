//! Comparing the accuracies under two attacks.

use std::cmp::Ordering;

use crate::row::Row;

/// The share of images at which a gradient may be zero, or a result off, without a flag.
pub(super) const FEW: f64 = 0.01;
/// A white-box attack with fewer steps may legitimately be beaten by a black-box one.
pub(super) const ENOUGH_STEPS: u64 = 10;

pub(super) fn percent(row: &Row) -> String {
    format!("{:.2} %", 100.0 * accuracy(row))
}

pub(super) fn accuracy(row: &Row) -> f64 {
    row.accuracy.unwrap_or(0.0)
}

/// Whether the higher accuracy is higher by more than chance draws of an attack make it: by more than one image in a
/// hundred, and by more than two images. Where one attack saw fewer images, the other's accuracy must also be outside its
/// interval: they may have been the harder ones.
pub(super) fn clearly(higher: &Row, lower: &Row) -> bool {
    let by = accuracy(higher) - accuracy(lower);
    let images = higher.n.unwrap_or(0).min(lower.n.unwrap_or(0)) as f64;
    let outside = match higher.n.cmp(&lower.n) {
        Ordering::Equal => true,
        Ordering::Less => higher.accuracy_low.is_some_and(|low| accuracy(lower) < low),
        Ordering::Greater => lower.accuracy_high.is_some_and(|high| high < accuracy(higher)),
    };
    by > FEW + 1e-9 && by * images > 2.5 && outside
}

/// Two attacks under one threat model.
pub(super) fn same_threat(a: &Row, b: &Row) -> bool {
    a.norm == b.norm && a.epsilon_value == b.epsilon_value
}

pub(super) fn compared(row: &Row, other: &Row) -> String {
    let name = |row: &Row| match &row.source {
        Some(source) => format!("{} from {source}", row.attack),
        None => row.attack.clone(),
    };
    format!("{} {}, {} {}", name(row), percent(row), name(other), percent(other))
}
