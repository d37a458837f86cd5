//! Accuracy by class.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Result;
use paper_tables::HeatMap;
use results::{Checkpoint, Kind, Row, Status};

use crate::publish::example_images::class_name;
use crate::publish::run::FinishedRun;

/// Correct images and all images of each class.
pub(super) type Counts = BTreeMap<u32, (u64, u64)>;

/// The counts of every evaluation, by cell.
pub(super) fn count(run: &FinishedRun, rows: &[Row]) -> Result<HashMap<String, Counts>> {
    let mut counts = HashMap::new();
    for row in rows.iter().filter(|row| row.status == Status::Done) {
        let mut of_row = Counts::new();
        for outcome in run.outcomes(row)? {
            let class = of_row.entry(outcome.label).or_default();
            class.0 += u64::from(outcome.correct);
            class.1 += 1;
        }
        counts.insert(row.cell.clone(), of_row);
    }
    Ok(counts)
}

/// A map of defenses and classes for clean images and each attack on the networks themselves, over all seeds: the attack that
/// leaves least comes first.
pub(super) fn maps(rows: &[Row], counts: &HashMap<String, Counts>) -> Vec<HeatMap> {
    type Lines<'a> = Vec<(&'a str, Counts)>;
    type Map<'a> = ((&'a str, &'a str, Checkpoint, &'a str), Lines<'a>);
    let mut maps: Vec<Map<'_>> = Vec::new();
    for row in rows.iter().filter(|row| row.kind != Kind::Transfer) {
        let Some(of_row) = counts.get(&row.cell) else { continue };
        let key = (
            row.dataset.as_str(),
            row.network.as_str(),
            row.checkpoint,
            row.attack.as_str(),
        );
        let lines = entry(&mut maps, key);
        let sum = entry(lines, row.defense.as_str());
        for (label, (correct, of)) in of_row {
            let class = sum.entry(*label).or_default();
            class.0 += correct;
            class.1 += of;
        }
    }
    let share = |lines: &Lines<'_>| {
        let all = lines.iter().flat_map(|(_, counts)| counts.values());
        let (correct, of) = all.fold((0, 0), |sum, class| (sum.0 + class.0, sum.1 + class.1));
        correct as f64 / of.max(1) as f64
    };
    maps.sort_by(|a, b| share(&a.1).total_cmp(&share(&b.1)));
    maps.iter().map(|(key, lines)| map(*key, lines)).collect()
}

fn map((dataset, network, checkpoint, attack): (&str, &str, Checkpoint, &str), lines: &[(&str, Counts)]) -> HeatMap {
    let labels: BTreeSet<u32> = lines.iter().flat_map(|(_, counts)| counts.keys().copied()).collect();
    let value = |counts: &Counts, label: &u32| {
        let (correct, of) = *counts.get(label)?;
        (of > 0).then(|| 100.0 * correct as f64 / of as f64)
    };
    let values = lines
        .iter()
        .map(|(_, counts)| labels.iter().map(|label| value(counts, label)).collect());
    HeatMap {
        id: format!(
            "classes-{}",
            plan::slug(&format!("{dataset} {network} {checkpoint} {attack}"))
        ),
        title: format!("{dataset}, {network} ({checkpoint}): accuracy in % by class under {attack}"),
        line: "defense".to_string(),
        column: "class".to_string(),
        lines: lines.iter().map(|(defense, _)| (*defense).to_string()).collect(),
        columns: labels.iter().map(|label| class_name(dataset, *label)).collect(),
        values: values.collect(),
    }
}

/// The value of a key in a list, which keeps the order of the rows.
fn entry<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let at = list.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[at].1
}
