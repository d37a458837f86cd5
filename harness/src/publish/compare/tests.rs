use super::super::comparison::*;
use super::super::read::*;
use super::*;

pub(in crate::publish::compare) fn name(defense: &str, attack: &str) -> Name {
    Name {
        dataset: "digits".into(),
        network: "tiny-cnn".into(),
        defense: defense.into(),
        recipe: "shared".into(),
        checkpoint: "last".into(),
        kind: if attack == "Natural" { "natural" } else { "white-box" }.into(),
        source: String::new(),
        attack: attack.into(),
        epsilon: "0.2".into(),
    }
}

/// Cells of 500 images, with these numbers of correct ones for seeds 0, 1 …
pub(in crate::publish::compare) fn stored(cells: &[(&str, &str, &[u64])]) -> Stored {
    let mut stored = Stored::default();
    for (defense, attack, counts) in cells {
        let seeds = counts.iter().enumerate();
        let seeds = seeds.map(|(seed, &correct)| (seed as u64, Count::Done { n: 500, correct }));
        stored.cells.insert(name(defense, attack), seeds.collect());
    }
    stored
}

pub(in crate::publish::compare) fn rules() -> Rules {
    Rules {
        points: None,
        by_attack: BTreeMap::new(),
        false_alarms: 0.01,
        strict: false,
    }
}

fn verdicts(comparison: &Comparison) -> Vec<(Scope, &str, &str, Verdict)> {
    let lines = comparison.lines.iter();
    lines
        .map(|line| (line.scope, &line.defense[..], &line.attack[..], line.verdict))
        .collect()
}

/// One cell, six seeds before, two after: 60, 62, 64, 66, 68, 70 % have mean 65 and deviation √14 = 3.742;
/// t(1 %, 5) = 4.0321; √(1/6 + 1/2) = 0.8165.
#[test]
fn the_tolerance_is_the_formula() {
    let before = stored(&[("A", "PGD", &[300, 310, 320, 330, 340, 350])]);
    let after = stored(&[("A", "PGD", &[300, 300])]);
    let comparison = compare(&after, &before, &rules());
    let line = &comparison.lines[0];
    assert!(
        (line.tolerance.unwrap() - 4.0321 * 14f64.sqrt() * (2.0f64 / 3.0).sqrt()).abs() < 1e-3,
        "{line:?}"
    );
    assert_eq!((line.difference, line.verdict), (Some(-5.0), Verdict::Within));
    // Two seeds only: 0.01 two-sided is 2.5758 deviations of counting, √(.65 · .35 / 500) = 2.133 points.
    let before = stored(&[("A", "PGD", &[325, 325])]);
    let line = &compare(&before, &before, &rules()).lines[0];
    assert!((line.tolerance.unwrap() - 2.5758 * 2.1331).abs() < 1e-3, "{line:?}");
    assert_eq!(line.verdict, Verdict::Same);
}

#[test]
fn down_is_a_regression_and_up_is_none() {
    let before = stored(&[("A", "PGD", &[300, 302, 304, 306, 308, 310])]);
    let verdict = |counts: &[u64], rules: &Rules| {
        let comparison = compare(&stored(&[("A", "PGD", counts)]), &before, rules);
        (comparison.lines[0].verdict, comparison.failures().len())
    };
    assert_eq!(verdict(&[200, 202], &rules()), (Verdict::Regressed, 1));
    assert_eq!(verdict(&[400, 402], &rules()), (Verdict::Improved, 0));
    assert_eq!(verdict(&[299, 311], &rules()), (Verdict::Within, 0));
    assert_eq!(verdict(&[300, 302], &rules()), (Verdict::Same, 0));
    let strict = Rules {
        strict: true,
        ..rules()
    };
    assert_eq!(verdict(&[400, 402], &strict), (Verdict::Improved, 1));
    // 305 of 500 before, 295 after: two points.
    let fixed = |points: f64| Rules {
        points: Some(points),
        ..rules()
    };
    assert_eq!(verdict(&[295], &fixed(2.0)), (Verdict::Within, 0));
    assert_eq!(verdict(&[294], &fixed(2.0)), (Verdict::Regressed, 1));
    let by_attack = Rules {
        by_attack: [("pgd".into(), 50.0)].into(),
        ..fixed(2.0)
    };
    assert_eq!(verdict(&[200], &by_attack), (Verdict::Within, 0));
}

/// Every defense gains less than chance allows for it alone; together they show that the attack is weaker.
#[test]
fn a_uniformly_weaker_attack_is_detected() {
    // The deviations of the seeds cancel, so their mean does not move.
    let (up, down) = (
        [300u64, 320, 300, 320, 300, 320, 300, 320],
        [320u64, 300, 320, 300, 320, 300, 320, 300],
    );
    let cells = [("A", &up), ("B", &down), ("C", &up), ("D", &down)];
    let side = |shift: u64, attack: &'static str| {
        let counts: Vec<Vec<u64>> = cells
            .iter()
            .map(|cell| cell.1.iter().map(|n| n + shift).collect())
            .collect();
        let named = cells
            .iter()
            .zip(&counts)
            .map(|(cell, counts)| (cell.0, attack, &counts[..]));
        stored(&named.collect::<Vec<_>>())
    };
    let comparison = compare(&side(10, "PGD"), &side(0, "PGD"), &rules());
    let failures = comparison.failures();
    assert_eq!(failures.len(), 1, "{:?}", verdicts(&comparison));
    assert_eq!(
        (failures[0].scope, failures[0].verdict, &failures[0].defense[..]),
        (Scope::Attack, Verdict::WeakerAttack, "all 4 defenses")
    );
    // Higher accuracy on clean images does not mean a weaker attack.
    let comparison = compare(&side(10, "Natural"), &side(0, "Natural"), &rules());
    assert!(comparison.failures().is_empty() && comparison.count(Verdict::Improved) == 1);
}

#[test]
fn what_is_only_on_one_side_is_named() {
    let before = stored(&[("A", "PGD", &[300]), ("B", "PGD", &[300]), ("C", "PGD", &[300])]);
    let mut after = stored(&[("A", "PGD", &[300]), ("D", "PGD", &[300]), ("C", "PGD", &[300])]);
    let failed = [(0, Count::Failed("diverged".into()))].into();
    after.cells.insert(name("C", "PGD"), failed);
    let comparison = compare(&after, &before, &rules());
    assert_eq!(
        verdicts(&comparison),
        [
            (Scope::Cell, "A", "PGD", Verdict::Same),
            (Scope::Cell, "B", "PGD", Verdict::Missing),
            (Scope::Cell, "C", "PGD", Verdict::Failed),
            (Scope::Cell, "D", "PGD", Verdict::New),
        ]
    );
    assert_eq!(comparison.failures().len(), 2);
    assert_eq!(comparison.lines[2].error.as_deref(), Some("diverged"));
    // What failed before may fail again.
    assert!(compare(&after, &after, &rules()).failures().is_empty());
}

#[test]
fn differing_versions_are_reported() {
    let (mut before, mut after) = (stored(&[("A", "PGD", &[300])]), stored(&[("A", "PGD", &[300])]));
    for (side, version) in [(&mut before, "1"), (&mut after, "2")] {
        side.versions.insert("attack PGD".into(), [version.to_string()].into());
        side.versions.insert("program".into(), ["0.1.0".to_string()].into());
    }
    assert_eq!(
        compare(&after, &before, &rules()).notes,
        ["version of attack PGD: 1 before, 2 after"]
    );
}
