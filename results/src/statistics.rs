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
    // Rounding may leave 1e-17 where the formula gives 0.
    Some(Interval {
        low: if correct == 0 { 0.0 } else { (centre - half).max(0.0) },
        high: if correct == n { 1.0 } else { (centre + half).min(1.0) },
    })
}

/// The arithmetic mean. `None` for no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The middle value, or the mean of the two in the middle. `None` for no values. Panics at NaN.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    let (low, high) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some((sorted[low] + sorted[high]) / 2.0)
}

/// The two-sided exact p-value of McNemar's test (McNemar 1947, Psychometrika 12): how probable it is that
/// b + c fair coins fall at least as unevenly as b to c.
///
/// p = min(1, 2 · Σ_{k ≤ min(b, c)} C(b + c, k) / 2^(b + c))
///
/// b and c count the examples that only the first and only the second of two classifiers gets right. No approximation
/// for any count: where b + c is large, χ² = (b − c)² / (b + c) says the same.
pub fn mcnemar(only_first: u64, only_second: u64) -> f64 {
    let (pairs, fewer) = (only_first + only_second, only_first.min(only_second));
    if only_first == only_second {
        return 1.0;
    }
    // ln C(pairs, fewer), then each term out of the one before, downwards: C(n, k − 1) = C(n, k) · k / (n − k + 1).
    let binomial: f64 = (1..=fewer).map(|k| ((pairs - fewer + k) as f64 / k as f64).ln()).sum();
    let largest = (binomial - pairs as f64 * std::f64::consts::LN_2).exp();
    let mut sum = 0.0;
    let mut term = 1.0;
    for k in (0..=fewer).rev() {
        sum += term;
        term *= k as f64 / (pairs - k + 1) as f64;
    }
    (2.0 * largest * sum).min(1.0)
}

/// p-values adjusted for being many (Holm 1979, Scand. J. Stat. 6): the i-th smallest of m, from 0, becomes
/// max_{j ≤ i} min(1, (m − j) · p_j), in the order given.
pub fn holm(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut adjusted = vec![0.0; values.len()];
    let mut largest = 0f64;
    for (rank, &place) in order.iter().enumerate() {
        largest = largest.max((values[place] * (values.len() - rank) as f64).min(1.0));
        adjusted[place] = largest;
    }
    adjusted
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
    fn the_middle_of_values() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    /// Closed forms: no heads in five throws 2/2⁵; at most one in ten 2·(1 + 10)/2¹⁰; at most two in eight
    /// 2·(1 + 8 + 28)/2⁸; at most 5 in 15 2·4944/2¹⁵.
    #[test]
    fn mcnemar_agrees_with_closed_forms() {
        let check = |b, c, expected: f64| {
            for found in [mcnemar(b, c), mcnemar(c, b)] {
                assert!((found - expected).abs() <= 1e-12 * expected, "{b} {c}: {found}");
            }
        };
        check(0, 5, 0.0625);
        check(1, 9, 22.0 / 1024.0);
        check(2, 6, 74.0 / 256.0);
        check(5, 10, 9888.0 / 32768.0);
        check(0, 0, 1.0);
        check(7, 7, 1.0);
        // At most n heads in 2n + 1 throws is half of all cases.
        check(300, 301, 1.0);
        // 2⁻¹⁰⁰⁰ is far below what a sum of plain powers could hold together with its binomials.
        check(0, 1001, 2f64.powi(-1000));
    }

    /// χ² with continuity correction, (|b − c| − 1)² / (b + c), is 99² / 900 = 10.89 at 400 to 500: the normal
    /// distribution has 9.67e-4 beyond ±3.3. The exact value is within a few per cent of it.
    #[test]
    fn mcnemar_of_many_pairs_is_near_the_normal_approximation() {
        let exact = mcnemar(400, 500);
        assert!((exact / 9.67e-4 - 1.0).abs() < 0.03, "{exact}");
    }

    /// The textbook's case: 0.01, 0.04, 0.03, 0.005 of four become 0.03, 0.06, 0.06, 0.02.
    #[test]
    fn holm_worked_by_hand() {
        for (found, expected) in holm(&[0.01, 0.04, 0.03, 0.005]).iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(holm(&[0.6, 0.9]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
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
