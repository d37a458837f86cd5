//! The few statistics a table needs.

/// A range of fractions, `0 ≤ low ≤ high ≤ 1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The Wilson score interval that covers a binomial proportion with 95 % confidence
/// (Wilson 1927, J. Am. Stat. Assoc. 22). `None` for no trials.
///
/// centre = (k + z²/2) / (n + z²), half = z/(n + z²) · √(k(n − k)/n + z²/4)
///
/// Panics if more succeed than try. Unlike the normal approximation it stays in `[0, 1]` and has a width at k = 0 and k = n.
pub fn wilson(correct: u64, n: u64) -> Option<Interval> {
    /// The 97.5 % quantile of the standard normal distribution.
    const Z: f64 = 1.959_963_984_540_054;
    assert!(correct <= n, "{correct} successes in {n} trials");
    if n == 0 {
        return None;
    }
    let (k, trials) = (correct as f64, n as f64);
    let denominator = trials + Z * Z;
    let centre = (k + Z * Z / 2.0) / denominator;
    let half = Z / denominator * (k * (trials - k) / trials + Z * Z / 4.0).sqrt();
    // Rounding may leave 1e-17 where the formula says 0.
    Some(Interval {
        low: if correct == 0 { 0.0 } else { (centre - half).max(0.0) },
        high: if correct == n { 1.0 } else { (centre + half).min(1.0) },
    })
}

/// The arithmetic mean. `None` for no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The sample standard deviation, with n − 1 in the denominator. `None` for fewer than two values.
pub fn sample_deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let centre = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(correct: u64, n: u64, low: f64, high: f64) {
        let interval = wilson(correct, n).unwrap();
        // The expected values are rounded to six places.
        assert!((interval.low - low).abs() < 6e-7, "{interval:?}");
        assert!((interval.high - high).abs() < 6e-7, "{interval:?}");
    }

    /// With z² = 3.841459. 8 of 10: centre (8 + 1.920729) / 13.841459 = 0.716740, half-width
    /// 1.959964 / 13.841459 · √(8·2/10 + 0.960365) = 0.141600 · 1.600114 = 0.226577.
    #[test]
    fn wilson_agrees_with_hand_worked_values() {
        check(8, 10, 0.490162, 0.943318);
        check(5, 10, 0.236593, 0.763407);
        check(1, 1, 0.206549, 1.0);
        // At k = 0 the upper end is z² / (n + z²).
        check(0, 10, 0.0, 0.277533);
        check(10, 10, 0.722467, 1.0);
        check(5557, 10_000, 0.545942, 0.565416);
    }

    #[test]
    fn wilson_is_symmetric_and_contains_the_estimate() {
        for n in 1..60u64 {
            for k in 0..=n {
                let (here, there) = (wilson(k, n).unwrap(), wilson(n - k, n).unwrap());
                let estimate = k as f64 / n as f64;
                assert!(0.0 <= here.low && here.low <= estimate && estimate <= here.high && here.high <= 1.0);
                assert!((here.low - (1.0 - there.high)).abs() < 1e-12);
            }
        }
        assert_eq!(wilson(0, 0), None);
    }

    #[test]
    fn spread_needs_two_values() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[2.0, 4.0, 9.0]), Some(5.0));
        assert_eq!(sample_deviation(&[5.0]), None);
        // ((−3)² + (−1)² + 4²) / 2 = 13
        assert_eq!(sample_deviation(&[2.0, 4.0, 9.0]), Some(13f64.sqrt()));
    }
}
