//! Lines before their verdicts: cells, and means of cells.

use std::collections::BTreeMap;

use super::comparison::{Line, Scope, Side, Verdict};
use super::read::{Count, Name};

/// Accuracy in points, by seed.
pub(super) type Seeds = BTreeMap<u64, f64>;

/// A line with what its verdict needs.
pub(super) struct Draft {
    pub(super) line: Line,
    pub(super) before: Seeds,
    pub(super) after: Seeds,
    /// Images of one accuracy.
    pub(super) images: u64,
    /// The attack's label in lower case, where there is one.
    pub(super) attack: Option<String>,
    pub(super) natural: bool,
}

/// A cell without a verdict: `Within` means "to be decided".
pub(super) fn cell(name: &Name, before: Option<&BTreeMap<u64, Count>>, after: Option<&BTreeMap<u64, Count>>) -> Draft {
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
        // It had failed before as well.
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
pub(super) fn averages(scope: Scope, cells: &[(Name, Seeds, Seeds, u64)], group: &dyn Fn(&Name) -> Name) -> Vec<Draft> {
    let mut groups: BTreeMap<Name, Vec<&(Name, Seeds, Seeds, u64)>> = BTreeMap::new();
    for cell in cells {
        groups.entry(group(&cell.0)).or_default().push(cell);
    }
    let mean = |members: &[&Seeds]| -> Seeds {
        let whole = members[0]
            .keys()
            .filter(|seed| members.iter().all(|seeds| seeds.contains_key(seed)));
        let of = |seed: &u64| members.iter().map(|seeds| seeds[seed]).sum::<f64>() / members.len() as f64;
        whole.map(|seed| (*seed, of(seed))).collect()
    };
    let mut drafts = Vec::new();
    for (name, members) in groups.iter().filter(|(_, members)| members.len() > 1) {
        let before = mean(&members.iter().map(|cell| &cell.1).collect::<Vec<_>>());
        let after = mean(&members.iter().map(|cell| &cell.2).collect::<Vec<_>>());
        if before.is_empty() || after.is_empty() {
            continue;
        }
        let images = members.iter().map(|cell| cell.3).min().unwrap_or(1);
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
