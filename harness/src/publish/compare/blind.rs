//! What a comparison could not have noticed: tolerances so wide that they hide what the comparison is for.

use std::collections::BTreeSet;

use super::comparison::{Line, Rules, Scope};

/// Wider tolerances are named, in points.
const WIDE: f64 = 5.0;

/// Halving the step of PGD or CW gives back this share, at least, of the accuracy that the attack takes: on
/// `matrices/ci.yaml` it gives back more than a third (`docs/ci.md`).
const GIVEN_BACK: f64 = 1.0 / 3.0;

/// A line, and whether it is about clean images.
pub(super) struct Judged {
    pub(super) line: Line,
    pub(super) natural: bool,
}

/// What the tolerances of these lines hide, in sentences.
pub(super) fn warnings(judged: &[Judged], rules: &Rules) -> Vec<String> {
    wide(judged, rules).into_iter().chain(blind(judged, rules)).collect()
}

/// The lines whose tolerance is wide, in one sentence.
fn wide(judged: &[Judged], rules: &Rules) -> Option<String> {
    let tolerances = judged
        .iter()
        .filter_map(|judged| Some((judged, judged.line.tolerance?)));
    let tolerances: Vec<(&Judged, f64)> = tolerances.collect();
    let wide = tolerances.iter().filter(|(_, tolerance)| *tolerance > WIDE);
    let (widest, most) = wide.clone().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let remedy = if rules.points.is_some() || !rules.by_attack.is_empty() {
        "give a smaller --tolerance, or none"
    } else {
        "add seeds to the baseline and to the run"
    };
    Some(format!(
        "{} of {} tolerances are wider than {WIDE} points, up to {most:.2} ({}): smaller changes there are not noticed; \
         {remedy}",
        wide.count(),
        tolerances.len(),
        name(&widest.line)
    ))
}

/// The attacks that could become weaker unnoticed, a sentence for each.
fn blind(judged: &[Judged], rules: &Rules) -> Vec<String> {
    let attacks = |scope: Scope| {
        judged
            .iter()
            .filter(move |judged| !judged.natural && judged.line.scope == scope && judged.line.tolerance.is_some())
            .map(|judged| &judged.line)
    };
    let averaged: BTreeSet<_> = attacks(Scope::Attack).map(of_attack).collect();
    let mut warnings = Vec::new();
    for line in attacks(Scope::Attack) {
        warnings.extend(too_wide(line, judged));
    }
    // Without a mean over defenses, a higher number is an improvement.
    for line in attacks(Scope::Cell).filter(|line| !averaged.contains(&of_attack(line))) {
        if rules.strict {
            warnings.extend(too_wide(line, judged));
        } else {
            warnings.push(format!(
                "{}: a weaker attack, such as one with half its step size, would not be noticed: of one defense, higher \
                 accuracy is `improved`, which fails with --strict alone; compare two defenses or more, or add --strict",
                name(line)
            ));
        }
    }
    warnings
}

/// If the tolerance of an attack's line exceeds what half a step would change.
fn too_wide(line: &Line, judged: &[Judged]) -> Option<String> {
    let group = (&line.dataset, &line.network, &line.checkpoint);
    let natural = judged.iter().filter(|judged| {
        let other = &judged.line;
        judged.natural && other.scope == Scope::Cell && (&other.dataset, &other.network, &other.checkpoint) == group
    });
    let natural: Vec<f64> = natural
        .filter_map(|judged| Some(judged.line.before.as_ref()?.mean))
        .collect();
    let taken = results::mean(&natural)? - line.before.as_ref()?.mean;
    let (tolerance, given_back) = (line.tolerance?, GIVEN_BACK * taken);
    (tolerance >= given_back).then(|| {
        format!(
            "{}: a weaker attack, such as one with half its step size, might not be noticed: the attack takes {taken:.2} \
             points, of which half the step gives back some {:.2}, and the tolerance is {tolerance:.2}; add seeds, images, \
             or a stronger attack",
            name(line),
            given_back.max(0.0)
        )
    })
}

fn of_attack(line: &Line) -> [&str; 4] {
    [&line.dataset, &line.network, &line.checkpoint, &line.attack]
}

fn name(line: &Line) -> String {
    let Line {
        dataset,
        network,
        defense,
        attack,
        ..
    } = line;
    format!("{dataset}, {network}, {defense}, {attack}")
}

#[cfg(test)]
mod tests {
    use super::super::compare::compare;
    use super::super::compare::tests::{rules, stored};
    use super::*;

    const CLEAN: [u64; 6] = [470, 471, 472, 470, 471, 472];
    const SHARP: [u64; 6] = [300, 301, 302, 300, 301, 302];
    const NOISY: [u64; 6] = [200, 300, 400, 250, 350, 300];

    fn said(cells: &[(&str, &str, &[u64])], rules: &Rules) -> Vec<String> {
        let side = stored(cells);
        compare(&side, &side, rules).warnings
    }

    #[test]
    fn a_sharp_gate_is_silent() {
        let cells: [(&str, &str, &[u64]); 4] = [
            ("A", "Natural", &CLEAN),
            ("A", "PGD", &SHARP),
            ("B", "Natural", &CLEAN),
            ("B", "PGD", &SHARP),
        ];
        assert_eq!(said(&cells, &rules()), [""; 0]);
    }

    #[test]
    fn wide_tolerances_and_gates_that_miss_a_halved_step_are_named() {
        let cells: [(&str, &str, &[u64]); 4] = [
            ("A", "Natural", &CLEAN),
            ("A", "PGD", &NOISY),
            ("B", "Natural", &CLEAN),
            ("B", "PGD", &NOISY),
        ];
        let warnings = said(&cells, &rules());
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(
            warnings[0].contains("wider than 5 points") && warnings[0].contains("add seeds"),
            "{warnings:?}"
        );
        assert!(
            warnings[1].starts_with("digits, tiny-cnn, all 2 defenses, PGD: a weaker attack"),
            "{warnings:?}"
        );

        // 471 − 301 of 500 are 34 points, a third of which are 11.33.
        let fixed = |points: f64| Rules {
            points: Some(points),
            ..rules()
        };
        let sharp: [(&str, &str, &[u64]); 4] = [
            ("A", "Natural", &CLEAN),
            ("A", "PGD", &SHARP),
            ("B", "Natural", &CLEAN),
            ("B", "PGD", &SHARP),
        ];
        assert_eq!(said(&sharp, &fixed(5.0)), [""; 0]);
        let warnings = said(&sharp, &fixed(11.0));
        assert!(
            warnings.len() == 1 && warnings[0].contains("a smaller --tolerance"),
            "{warnings:?}"
        );
        let warnings = said(&sharp, &fixed(12.0));
        assert!(
            warnings.len() == 2 && warnings[1].contains("takes 34.00 points"),
            "{warnings:?}"
        );
    }

    #[test]
    fn one_defense_alone_sees_no_weaker_attack() {
        let cells: [(&str, &str, &[u64]); 2] = [("A", "Natural", &CLEAN), ("A", "PGD", &SHARP)];
        let warnings = said(&cells, &rules());
        assert!(
            warnings.len() == 1 && warnings[0].contains("fails with --strict alone"),
            "{warnings:?}"
        );
        let strict = Rules {
            strict: true,
            ..rules()
        };
        assert_eq!(said(&cells, &strict), [""; 0]);
    }
}
