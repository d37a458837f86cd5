//! Student's t distribution, as far as a two-sided test needs it.
//!
//! P(|T| > t) with ν degrees of freedom is the regularised incomplete beta function I_x(ν/2, 1/2) at
//! x = ν / (ν + t²); for ν → ∞ it is erfc(t / √2). The function is evaluated by its continued fraction
//! (Abramowitz and Stegun 26.5.8) in the manner of Lentz (1976).

/// P(|T| > t) with this many degrees of freedom; infinity gives the normal distribution.
fn two_sided(t: f64, freedom: f64) -> f64 {
    let t = t.abs();
    if freedom.is_infinite() {
        return libm::erfc(t / std::f64::consts::SQRT_2);
    }
    incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// The t with P(|T| > t) = `p`, for `0 < p < 1`, of Student's distribution; infinite `freedom` gives the normal one.
pub fn student_quantile(p: f64, freedom: f64) -> f64 {
    debug_assert!(
        p > 0.0 && p < 1.0 && freedom > 0.0,
        "p {p}, {freedom} degrees of freedom"
    );
    let mut high = 1.0;
    while two_sided(high, freedom) > p && high < 1e150 {
        high *= 2.0;
    }
    let mut low = 0.0;
    // Halved until the bounds meet in a double's precision.
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if two_sided(middle, freedom) > p {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// I_x(a, b) for `a, b > 0` and `0 ≤ x ≤ 1`.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges quickly on this side of the mean; on the other it is taken from the far end.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * x.ln() + b * (1.0 - x).ln();
    front.exp() / a / fraction(a, b, x)
}

/// 1 + d₁ / (1 + d₂ / (1 + …)), whose inverse the incomplete beta function needs.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let (mut value, mut c, mut d) = (1.0, 1.0, 0.0);
    for i in 1..1000 {
        let m = f64::from(i / 2);
        let term = if i % 2 == 0 {
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        } else {
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        };
        d = 1.0 / away(1.0 + term * d);
        c = away(1.0 + term / c);
        value *= c * d;
        if (c * d - 1.0).abs() < 1e-15 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64, relative: f64) {
        assert!(
            (found - expected).abs() <= relative * expected.abs(),
            "{found}, not {expected}"
        );
    }

    /// The table of every textbook, two-sided 5 %, 1 % and 0.1 %, to three places.
    #[test]
    fn quantiles_are_the_tabulated_ones() {
        for (freedom, expected) in [
            (1.0, [12.706, 63.657, 636.619]),
            (2.0, [4.303, 9.925, 31.599]),
            (5.0, [2.571, 4.032, 6.869]),
            (10.0, [2.228, 3.169, 4.587]),
            (30.0, [2.042, 2.750, 3.646]),
            (f64::INFINITY, [1.960, 2.576, 3.291]),
        ] {
            for (p, expected) in [0.05, 0.01, 0.001].into_iter().zip(expected) {
                assert!(
                    (student_quantile(p, freedom) - expected).abs() < 6e-4,
                    "{p} with {freedom}: {}",
                    student_quantile(p, freedom)
                );
            }
        }
    }

    /// One and two degrees of freedom have closed forms: 1 − 2/π · atan(t), and 1 − t / √(2 + t²).
    #[test]
    fn closed_forms_agree() {
        for t in [0.01, 0.3, 1.0, 2.5, 10.0, 40.0] {
            close(two_sided(t, 1.0), 2.0 / std::f64::consts::PI * (1.0 / t).atan(), 1e-11);
            let root = (2.0 + t * t).sqrt();
            // 1 − t / r without cancellation: (r² − t²) / (r · (r + t)).
            close(two_sided(t, 2.0), 2.0 / (root * (root + t)), 1e-11);
        }
        assert_eq!(two_sided(0.0, 7.0), 1.0);
    }

    #[test]
    fn quantile_and_probability_are_inverse() {
        for freedom in [1.0, 3.0, 9.0, 19.0, 200.0, f64::INFINITY] {
            for p in [0.5, 0.01, 1e-4, 1e-7] {
                close(two_sided(student_quantile(p, freedom), freedom), p, 1e-9);
            }
        }
    }
}
