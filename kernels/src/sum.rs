//! Sums of many numbers: short ones side by side in the numbers' own type, then in double precision.

use crate::element::Element;

/// The sum of a function of the values: eight lanes in T, then doubles.
pub(crate) fn sum<T: Element>(plane: &[T], term: impl Fn(T) -> T) -> f64 {
    pair_sum(plane, plane, |x, _| term(x))
}

/// The sum of a function of pairs of values: eight lanes in T, then doubles.
pub(crate) fn pair_sum<T: Element>(a: &[T], b: &[T], term: impl Fn(T, T) -> T) -> f64 {
    let mut lanes = [T::zero(); 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let (a_rest, b_rest) = (a.remainder(), b.remainder());
    for (a, b) in a.zip(b) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += term(a, b);
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(&a, &b)| term(a, b).to_f64());
    lanes.iter().map(|lane| lane.to_f64()).sum::<f64>() + rest.sum::<f64>()
}
