//! Whether results have moved further than chance moves them.
//!
//! Cells are matched by name. For each cell, each attack's mean over defenses and each defense's mean over
//! attacks, the means over seeds before and after are compared:
//!
//! difference = mean(after) − mean(before), tolerance = t(α/m, ν) · s · √(1/n₁ + 1/n₂)
//!
//! where n₁ and n₂ count the seeds, s is the standard deviation over the baseline's seeds, ν = n₁ − 1, m is the
//! number of such comparisons (Bonferroni), and α bounds the chance that an honest change of seeds is flagged
//! anywhere. Seeds are what must vary: two trainings on two processors round otherwise and drift apart like
//! two seeds, so equal seeds are not taken for equal networks, as McNemar's test over images would.
//! A baseline of fewer than six seeds says little of s; there the deviation of counting `n` images stands in if
//! it is larger, √(p(1 − p)/n), with the normal quantile. s is never taken for less than one image.
//!
//! The means are what finds small, systematic changes: an attack that has lost half its steps moves one image
//! in a hundred of every network, and the noise of single networks averages out.

mod csv;
mod junit;
mod read;
mod report;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub(crate) use self::junit::junit;
pub(crate) use self::read::{Count, Name, Stored, baseline, read, rewrite};
pub(crate) use self::report::{Shown, markdown, text};

/// How far a mean may move.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Rules {
    /// In points, for all that `by_attack` does not name. `None`: as far as chance moves it.
    pub(crate) points: Option<f64>,
    /// In points, by the attack's label in lower case.
    pub(crate) by_attack: BTreeMap<String, f64>,
    /// α: how often chance may flag an honest comparison as a whole.
    pub(crate) false_alarms: f64,
    /// Improvements and new cells count as failures too.
    pub(crate) strict: bool,
}

/// What a line compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scope {
    /// One defense under one attack.
    Cell,
    /// One attack, averaged over defenses.
    Attack,
    /// One defense, averaged over attacks.
    Defense,
}

/// How a line came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Lower than the tolerance allows.
    Regressed,
    /// An attack leaves more than the tolerance allows, over all defenses: it has become weaker.
    WeakerAttack,
    /// In the baseline, and not in the run.
    Missing,
    /// The run failed where the baseline has a number.
    Failed,
    /// Higher than the tolerance allows.
    Improved,
    /// In the run, and without a number in the baseline.
    New,
    /// Moved, by less than the tolerance.
    Within,
    /// The same count of images for every seed.
    Same,
}

/// The accuracies of one side, in points.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Side {
    pub(crate) mean: f64,
    /// Over seeds; absent for one.
    pub(crate) deviation: Option<f64>,
    pub(crate) seeds: usize,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Line {
    pub(crate) scope: Scope,
    pub(crate) dataset: String,
    pub(crate) network: String,
    /// The label, or how many were averaged.
    pub(crate) defense: String,
    pub(crate) checkpoint: String,
    /// The label, or how many were averaged.
    pub(crate) attack: String,
    pub(crate) before: Option<Side>,
    pub(crate) after: Option<Side>,
    /// after − before, in points.
    pub(crate) difference: Option<f64>,
    /// In points.
    pub(crate) tolerance: Option<f64>,
    pub(crate) verdict: Verdict,
    /// What a failed cell says of itself.
    pub(crate) error: Option<String>,
}

/// A comparison of two sets of results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Comparison {
    pub(crate) rules: Rules,
    /// Cells, then attacks, then defenses.
    pub(crate) lines: Vec<Line>,
    /// Versions, data and seeds that differ.
    pub(crate) notes: Vec<String>,
}

impl Comparison {
    /// The lines that must not be, worst first.
    pub(crate) fn failures(&self) -> Vec<&Line> {
        let mut failures: Vec<&Line> = self.lines.iter().filter(|line| self.fails(line)).collect();
        failures.sort_by_key(|line| line.verdict);
        failures
    }

    pub(crate) fn fails(&self, line: &Line) -> bool {
        match line.verdict {
            Verdict::Regressed | Verdict::WeakerAttack | Verdict::Missing | Verdict::Failed => true,
            Verdict::Improved | Verdict::New => self.rules.strict,
            Verdict::Within | Verdict::Same => false,
        }
    }

    /// How many lines came out so.
    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        self.lines.iter().filter(|line| line.verdict == verdict).count()
    }
}

/// Accuracy in points, by seed.
type Seeds = BTreeMap<u64, f64>;

/// A line with what its verdict needs.
struct Draft {
    line: Line,
    before: Seeds,
    after: Seeds,
    /// Images of one accuracy.
    images: u64,
    /// The attack's label in lower case, where there is one.
    attack: Option<String>,
    natural: bool,
}

/// Compares a run with a baseline.
pub(crate) fn compare(run: &Stored, baseline: &Stored, rules: &Rules) -> Comparison {
    let names: BTreeSet<&Name> = baseline.cells.keys().chain(run.cells.keys()).collect();
    let mut drafts = Vec::new();
    let mut both = Vec::new();
    for name in names {
        let draft = cell(name, baseline.cells.get(name), run.cells.get(name));
        if draft.line.verdict == Verdict::Within {
            both.push((name.clone(), draft.before.clone(), draft.after.clone(), draft.images));
        }
        drafts.push(draft);
    }
    let of_attack = |name: &Name| Name {
        defense: String::new(),
        recipe: String::new(),
        ..name.clone()
    };
    let of_defense = |name: &Name| Name {
        kind: String::new(),
        source: String::new(),
        attack: String::new(),
        epsilon: String::new(),
        ..name.clone()
    };
    drafts.extend(averages(Scope::Attack, &both, &of_attack));
    drafts.extend(averages(Scope::Defense, &both, &of_defense));

    let tests = drafts
        .iter()
        .filter(|draft| draft.line.verdict == Verdict::Within)
        .count();
    let level = rules.false_alarms / tests.max(1) as f64;
    let lines = drafts.into_iter().map(|draft| judge(draft, rules, level)).collect();
    Comparison {
        rules: rules.clone(),
        lines,
        notes: notes(run, baseline),
    }
}

/// A cell before any judgement: `Within` stands for "to be judged".
fn cell(name: &Name, before: Option<&BTreeMap<u64, Count>>, after: Option<&BTreeMap<u64, Count>>) -> Draft {
    let points = |side: Option<&BTreeMap<u64, Count>>| -> Seeds {
        let counts = side.into_iter().flatten();
        let done = counts.filter_map(|(seed, count)| match count {
            Count::Done { n, correct } => Some((*seed, 100.0 * *correct as f64 / *n as f64)),
            Count::Failed(_) => None,
        });
        done.collect()
    };
    let images = [before, after].into_iter().flatten().flat_map(BTreeMap::values);
    let images = images.filter_map(|count| match count {
        Count::Done { n, .. } => Some(*n),
        Count::Failed(_) => None,
    });
    let error = after
        .into_iter()
        .flat_map(BTreeMap::values)
        .find_map(|count| match count {
            Count::Failed(error) => Some(error.clone()),
            Count::Done { .. } => None,
        });
    let (before_points, after_points) = (points(before), points(after));
    let verdict = match (before_points.is_empty(), after) {
        (false, None) => Verdict::Missing,
        (false, Some(_)) if error.is_some() => Verdict::Failed,
        (false, Some(_)) => Verdict::Within,
        // It failed before, too.
        (true, _) if after_points.is_empty() => Verdict::Same,
        (true, _) => Verdict::New,
    };
    let attack = match name.source.as_str() {
        "" => name.attack.clone(),
        source => format!("{} from {source}", name.attack),
    };
    let mut draft = draft(
        Scope::Cell,
        name,
        before_points,
        after_points,
        images.min().unwrap_or(1),
    );
    draft.line.defense = name.defense.clone();
    draft.line.attack = attack;
    draft.line.verdict = verdict;
    draft.line.error = error;
    draft
}

fn draft(scope: Scope, name: &Name, before: Seeds, after: Seeds, images: u64) -> Draft {
    let side = |seeds: &Seeds| {
        let values: Vec<f64> = seeds.values().copied().collect();
        results::mean(&values).map(|mean| Side {
            mean,
            deviation: results::sample_deviation(&values),
            seeds: values.len(),
        })
    };
    let (before_side, after_side) = (side(&before), side(&after));
    let difference = before_side.as_ref().zip(after_side.as_ref());
    Draft {
        line: Line {
            scope,
            dataset: name.dataset.clone(),
            network: name.network.clone(),
            defense: String::new(),
            checkpoint: name.checkpoint.clone(),
            attack: String::new(),
            difference: difference.map(|(before, after)| after.mean - before.mean),
            before: before_side,
            after: after_side,
            tolerance: None,
            verdict: Verdict::Within,
            error: None,
        },
        before,
        after,
        images,
        attack: (!name.attack.is_empty()).then(|| name.attack.to_lowercase()),
        natural: name.kind == "natural",
    }
}

/// The means, seed by seed, over all cells that agree in what `group` leaves of their names. A single cell
/// is no mean, and a seed that a cell lacks is left out.
fn averages(scope: Scope, cells: &[(Name, Seeds, Seeds, u64)], group: &dyn Fn(&Name) -> Name) -> Vec<Draft> {
    let mut groups: BTreeMap<Name, Vec<&(Name, Seeds, Seeds, u64)>> = BTreeMap::new();
    for cell in cells {
        groups.entry(group(&cell.0)).or_default().push(cell);
    }
    let mean = |members: &[&Seeds]| -> Seeds {
        let whole = members[0]
            .keys()
            .filter(|seed| members.iter().all(|it| it.contains_key(seed)));
        let of = |seed: &u64| members.iter().map(|it| it[seed]).sum::<f64>() / members.len() as f64;
        whole.map(|seed| (*seed, of(seed))).collect()
    };
    let mut drafts = Vec::new();
    for (name, members) in groups.iter().filter(|(_, members)| members.len() > 1) {
        let before = mean(&members.iter().map(|it| &it.1).collect::<Vec<_>>());
        let after = mean(&members.iter().map(|it| &it.2).collect::<Vec<_>>());
        if before.is_empty() || after.is_empty() {
            continue;
        }
        let images = members.iter().map(|it| it.3).min().unwrap_or(1);
        let mut draft = draft(scope, name, before, after, images);
        let all = |what: &str| format!("all {} {what}", members.len());
        match scope {
            Scope::Attack => {
                draft.line.defense = all("defenses");
                draft.line.attack = match name.source.as_str() {
                    "" => name.attack.clone(),
                    source => format!("{} from {source}", name.attack),
                };
            }
            _ => {
                draft.line.defense = name.defense.clone();
                draft.line.attack = all("attacks");
            }
        }
        drafts.push(draft);
    }
    drafts
}

/// Fills tolerance and verdict in.
fn judge(draft: Draft, rules: &Rules, level: f64) -> Line {
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
    line.verdict = match difference < 0.0 {
        _ if after.iter().all(|(seed, points)| before.get(seed) == Some(points)) => Verdict::Same,
        _ if !beyond => Verdict::Within,
        true => Verdict::Regressed,
        false if line.scope == Scope::Attack && !natural => Verdict::WeakerAttack,
        false => Verdict::Improved,
    };
    line
}

/// How far chance moves the difference of two means, in points; see the head of this file.
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

/// What else differs between the two sides.
fn notes(run: &Stored, baseline: &Stored) -> Vec<String> {
    let mut notes = Vec::new();
    let list = |set: &BTreeSet<String>| {
        let short = set.iter().map(|it| it.chars().take(16).collect::<String>());
        short.collect::<Vec<_>>().join(", ")
    };
    for (what, before) in &baseline.versions {
        if let Some(after) = run.versions.get(what)
            && before != after
        {
            let subject = if what.starts_with("data") {
                what.clone()
            } else {
                format!("version of {what}")
            };
            notes.push(format!("{subject}: {} before, {} after", list(before), list(after)));
        }
    }
    let images = |stored: &Stored| -> BTreeSet<u64> {
        let counts = stored.cells.values().flat_map(BTreeMap::values);
        let done = counts.filter_map(|count| match count {
            Count::Done { n, .. } => Some(*n),
            Count::Failed(_) => None,
        });
        done.collect()
    };
    let (before, after) = (images(baseline), images(run));
    if before != after {
        notes.push(format!("numbers of images: {before:?} before, {after:?} after"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn name(defense: &str, attack: &str) -> Name {
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

    /// Cells of 500 images with so many correct for seeds 0, 1 …
    pub(super) fn stored(cells: &[(&str, &str, &[u64])]) -> Stored {
        let mut stored = Stored::default();
        for (defense, attack, counts) in cells {
            let seeds = counts.iter().enumerate();
            let seeds = seeds.map(|(seed, &correct)| (seed as u64, Count::Done { n: 500, correct }));
            stored.cells.insert(name(defense, attack), seeds.collect());
        }
        stored
    }

    pub(super) fn rules() -> Rules {
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
            .map(|it| (it.scope, &it.defense[..], &it.attack[..], it.verdict))
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
    fn an_attack_that_is_weaker_everywhere_is_seen() {
        // Seeds err against each other, so that their mean is quiet.
        let (up, down) = (
            [300u64, 320, 300, 320, 300, 320, 300, 320],
            [320u64, 300, 320, 300, 320, 300, 320, 300],
        );
        let cells = [("A", &up), ("B", &down), ("C", &up), ("D", &down)];
        let side = |shift: u64, attack: &'static str| {
            let counts: Vec<Vec<u64>> = cells
                .iter()
                .map(|it| it.1.iter().map(|n| n + shift).collect())
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
        // Clean images that are recognised better are no weaker attack.
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
    fn versions_that_differ_are_told() {
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
}
