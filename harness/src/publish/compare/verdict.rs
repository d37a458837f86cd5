//! The verdict of a line: did it change by more than its tolerance?

use super::comparison::{Line, Rules, Scope, Verdict};
use super::draft::{Draft, Seeds};

/// Fills tolerance and verdict in.
pub(super) fn decide(draft: Draft, rules: &Rules, level: f64) -> Line {
    let Draft {
        mut line,
        before,
        after,
        images,
        attack,
        natural,
    } = draft;
    let (Verdict::Within, Some(difference)) = (line.verdict, line.difference) else {
        return line;
    };
    let by_attack = attack.and_then(|attack| rules.by_attack.get(&attack));
    let fixed = by_attack.copied().or(rules.points);
    let tolerance = fixed.unwrap_or_else(|| by_chance(&before, &after, images, level));
    // A difference of a whole number of images has rounded on the way.
    let beyond = difference.abs() > tolerance + 1e-9;
    line.tolerance = Some(tolerance);
    line.verdict = if after.iter().all(|(seed, points)| before.get(seed) == Some(points)) {
        Verdict::Same
    } else if !beyond {
        Verdict::Within
    } else if difference < 0.0 {
        Verdict::Regressed
    } else if line.scope == Scope::Attack && !natural {
        Verdict::WeakerAttack
    } else {
        Verdict::Improved
    };
    line
}

/// How far chance moves the difference of two means, in points; see the head of `compare`.
fn by_chance(before: &Seeds, after: &Seeds, images: u64, level: f64) -> f64 {
    /// Degrees of freedom from which the baseline's own deviation is trusted.
    const ENOUGH: usize = 5;
    let values = |seeds: &Seeds| seeds.values().copied().collect::<Vec<f64>>();
    let (before, after) = (values(before), values(after));
    let image = 100.0 / images as f64;
    let (deviation, freedom) = match before.len() - 1 {
        freedom @ ENOUGH.. => (results::sample_deviation(&before).unwrap_or(0.0), freedom as f64),
        _ => {
            let all = [before.as_slice(), after.as_slice()].concat();
            let p = results::mean(&all).unwrap_or(0.0) / 100.0;
            let counting = 100.0 * (p * (1.0 - p) / images as f64).sqrt();
            (pooled(&before, &after).max(counting), f64::INFINITY)
        }
    };
    let seeds = (1.0 / before.len() as f64 + 1.0 / after.len() as f64).sqrt();
    results::student_quantile(level, freedom) * deviation.max(image) * seeds
}

/// The deviation within two samples, 0 if neither has two values.
fn pooled(a: &[f64], b: &[f64]) -> f64 {
    let squares = |values: &[f64]| {
        let deviation = results::sample_deviation(values).unwrap_or(0.0);
        deviation * deviation * (values.len() - 1) as f64
    };
    let freedom = a.len() + b.len() - 2;
    ((squares(a) + squares(b)) / freedom.max(1) as f64).sqrt()
}
