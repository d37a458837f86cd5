//! The projection onto a plane inside `[0, 1]`.

use crate::Norm;

/// Weights of a plane that count as 0 under L2.
const FLAT: f64 = 1e-8;

/// The smallest change d with ⟨w, d⟩ = −`value` that keeps `point` in `[0, 1]`. Where no change reaches the plane, the
/// corner of `[0, 1]` nearest to it; pixels without weight stay.
///
/// Each pixel moves against the sign of `value`·w until it meets the edge of `[0, 1]`: L∞ all by the same λ, L2 in
/// proportion λ to |w|. λ solves Σ |w|·moved = |`value`|, which is piecewise linear in λ; the pieces end where pixels
/// meet the edge.
pub(crate) fn to_plane(norm: Norm, point: &[f64], normal: &[f64], value: f64) -> Vec<f64> {
    // Towards smaller ⟨w, q⟩ if the value is positive.
    let sign = if value >= 0.0 { 1.0 } else { -1.0 };
    let need = value.abs();
    let flat = if norm == Norm::L2 { FLAT } else { 0.0 };
    // (λ at which the pixel meets the edge, its share of the slope), for each pixel with weight.
    let mut edges = Vec::with_capacity(point.len());
    let mut slope = 0.0;
    for (&pixel, &weight) in point.iter().zip(normal) {
        if weight.abs() <= flat {
            continue;
        }
        let room = room(pixel, sign * weight);
        let (edge, share) = match norm {
            Norm::Linf => (room, weight.abs()),
            Norm::L2 => (room / weight.abs(), weight * weight),
        };
        slope += share;
        edges.push((edge, share));
    }
    edges.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut lambda, mut gained) = (0.0, 0.0);
    let mut reached = need == 0.0;
    for (edge, share) in edges {
        let next = gained + slope * (edge - lambda);
        if next >= need && slope > 0.0 {
            lambda += (need - gained) / slope;
            reached = true;
            break;
        }
        (lambda, gained) = (edge, next);
        slope -= share;
    }
    if !reached {
        lambda = f64::INFINITY;
    }
    let moved = point.iter().zip(normal).map(|(&pixel, &weight)| {
        if weight.abs() <= flat {
            return 0.0;
        }
        let wish = match norm {
            Norm::Linf => lambda,
            Norm::L2 => lambda * weight.abs(),
        };
        -(sign * weight).signum() * wish.min(room(pixel, sign * weight))
    });
    moved.collect()
}

/// How far a pixel can move against the sign of `weight`.
fn room(pixel: f64, weight: f64) -> f64 {
    let room = if weight > 0.0 { pixel } else { 1.0 - pixel };
    room.max(0.0)
}

/// The length of a vector in the norm.
pub(crate) fn length(norm: Norm, values: impl Iterator<Item = f64>) -> f64 {
    match norm {
        Norm::Linf => values.fold(0.0, |largest, value| largest.max(value.abs())),
        Norm::L2 => values.map(|value| value * value).sum::<f64>().sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use random::Stream;
    use testing::{assert_near, tensor as doubles_of};

    #[test]
    fn projections_worked_by_hand() {
        let check = |norm, value: f64, expected: &[f64]| {
            let change = to_plane(norm, &[0.5, 0.9, 0.1, 0.3], &[1.0, -2.0, 2.0, 0.0], value);
            assert_near(
                &format!("{norm} {value}"),
                &doubles_of(&change, &[4]),
                &doubles_of(expected, &[4]),
                1e-12,
            );
        };
        // Slope 5 until the second and third pixel meet the edge, both after 0.1.
        check(Norm::Linf, 0.25, &[-0.05, 0.05, -0.05, 0.0]);
        check(Norm::Linf, 0.7, &[-0.3, 0.1, -0.1, 0.0]);
        // The corner: 0.5 + 0.2 + 0.2.
        check(Norm::Linf, 2.0, &[-0.5, 0.1, -0.1, 0.0]);
        check(Norm::Linf, -0.5, &[0.1, -0.1, 0.1, 0.0]);
        check(Norm::Linf, 0.0, &[0.0; 4]);
        // λ·(1 + 4 + 4) until λ·2 = 0.1.
        check(Norm::L2, 0.27, &[-0.03, 0.06, -0.06, 0.0]);
        check(Norm::L2, 0.6, &[-0.2, 0.1, -0.1, 0.0]);
        check(Norm::L2, 2.0, &[-0.5, 0.1, -0.1, 0.0]);
    }

    proptest! {
        #[test]
        fn a_projection_reaches_the_plane_inside_the_box_and_no_random_change_is_shorter(
            point in prop::collection::vec(0f64..=1.0, 7), normal in prop::collection::vec(-2f64..2.0, 7),
            value in -6f64..6.0, l2: bool, seed: u64,
        ) {
            let norm = if l2 { Norm::L2 } else { Norm::Linf };
            let change = to_plane(norm, &point, &normal, value);
            prop_assert!(point.iter().zip(&change).all(|(x, d)| (-1e-12..=1.0 + 1e-12).contains(&(x + d))));
            let gained = |change: &[f64]| normal.iter().zip(change).map(|(w, d)| w * d).sum::<f64>();
            let left = value + gained(&change);
            let most: f64 = point.iter().zip(&normal).map(|(&x, &w)| w.abs() * room(x, w * value.signum())).sum();
            if most < value.abs() {
                prop_assert!((left.abs() - (value.abs() - most)).abs() < 1e-9, "not the corner: {} left", left);
                return Ok(());
            }
            prop_assert!(left.abs() < 1e-9, "{} from the plane", left);
            // Changes within the plane that stay inside the box are at least as long.
            let length_of = |change: &[f64]| length(norm, change.iter().copied());
            let draws = Stream::new(seed).normal(&[0], 7);
            let square = normal.iter().map(|w| w * w).sum::<f64>().max(1e-12);
            let draws: Vec<f64> = draws.iter().map(|&draw| f64::from(draw)).collect();
            let away = gained(&draws) / square;
            let other: Vec<f64> = (0..7).map(|i| change[i] + 0.01 * (draws[i] - away * normal[i])).collect();
            if point.iter().zip(&other).all(|(x, d)| (0.0..=1.0).contains(&(x + d))) {
                prop_assert!(length_of(&other) >= length_of(&change) - 1e-9);
            }
        }
    }
}
