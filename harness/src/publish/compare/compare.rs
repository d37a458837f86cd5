//! Compares a run with a baseline.

use std::collections::{BTreeMap, BTreeSet};

use super::blind::{self, Judged};
use super::comparison::{Comparison, Rules, Scope, Verdict};
use super::draft::{averages, cell};
use super::read::{Count, Name, Stored};
use super::verdict::decide;

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
    let judged = drafts.into_iter().map(|draft| Judged {
        natural: draft.natural,
        line: decide(draft, rules, level),
    });
    let judged: Vec<Judged> = judged.collect();
    let warnings = blind::warnings(&judged, rules);
    Comparison {
        rules: rules.clone(),
        lines: judged.into_iter().map(|judged| judged.line).collect(),
        warnings,
        notes: notes(run, baseline),
    }
}

/// What else differs between the two sides.
fn notes(run: &Stored, baseline: &Stored) -> Vec<String> {
    let mut notes = Vec::new();
    let list = |set: &BTreeSet<String>| {
        let short = set.iter().map(|version| version.chars().take(16).collect::<String>());
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
#[path = "tests.rs"]
pub(super) mod tests;
