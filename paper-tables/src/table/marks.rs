//! Which numbers of a column are the highest, tied with it, or different from a chosen line.
//!
//! Two numbers differ significantly if McNemar's exact test says so for every seed that both were measured with, and
//! always in the same direction. That is the intersection–union test (Berger 1982, Technometrics 24): its p-value is
//! the largest of the seeds'. Which number is the highest is seen in the data, so those that are compared with it take the
//! p-values that Holm's method gives for all pairs of defenses. The line that a table compares with is chosen
//! beforehand, so there only its own pairs count.

use std::collections::BTreeMap;

use results::Checkpoint;

use super::index::ResultIndex;
use super::types::{Cell, Entry, Line};
use crate::spec::{BlockSpec, ColumnSpec, RowSpec, TableSpec};

/// Differences with a smaller p-value are significant.
const LEVEL: f64 = 0.05;

/// Marks the entries of a block.
pub(super) fn mark(lines: &mut [Line], spec: &TableSpec, block: &BlockSpec, index: &ResultIndex<'_>) {
    for &checkpoint in &spec.checkpoints {
        let of_checkpoint: Vec<usize> = (0..lines.len())
            .filter(|&at| lines[at].checkpoint == checkpoint)
            .collect();
        for (column, shown) in spec.columns.iter().enumerate() {
            let tests = ColumnTests {
                pairs: pairs(index, block, shown, checkpoint),
                rows: &spec.rows,
            };
            let entries: Vec<&Entry> = of_checkpoint.iter().map(|&at| &lines[at].entries[column]).collect();
            let highest = highest(&entries);
            let none = || vec![None; entries.len()];
            // One question for a table: two adjustments of one p-value side by side would contradict each other.
            let (tied, different) = match spec.style.against.as_deref() {
                Some(defense) => (none(), tests.different(&entries, defense)),
                None if spec.style.bold => (tests.tied(&entries, &highest), none()),
                None => (none(), none()),
            };
            for (place, &at) in of_checkpoint.iter().enumerate() {
                let entry = &mut lines[at].entries[column];
                entry.highest = highest[place];
                entry.tied = tied[place];
                entry.different = different[place];
            }
        }
    }
}

/// Equal as shown, to two decimals, is equally high. Where all are equal, or alone, none is highest.
fn highest(entries: &[&Entry]) -> Vec<bool> {
    let shown = |entry: &Entry| match &entry.cell {
        Cell::Measured(measurement) => Some((measurement.mean * 100.0).round() as i64),
        _ => None,
    };
    let values = || entries.iter().filter_map(|entry| shown(entry));
    let most = values().max();
    let none = most == values().min();
    entries.iter().map(|entry| !none && shown(entry) == most).collect()
}

/// Seed, its difference in direction from the first name to the second, p, and p by Holm for all pairs.
type Pair = (u64, f64, f64, f64);
/// By the names of two defenses.
type Pairs<'a> = BTreeMap<(&'a str, &'a str), Vec<Pair>>;

fn pairs<'a>(index: &ResultIndex<'a>, block: &BlockSpec, column: &ColumnSpec, checkpoint: Checkpoint) -> Pairs<'a> {
    let group = (
        &block.dataset[..],
        &block.network[..],
        &column.attack[..],
        column.kind,
        checkpoint,
    );
    let mut pairs = Pairs::new();
    for comparison in index.pairs(group) {
        if column.source.is_none() || column.source == comparison.source {
            let seeds = pairs
                .entry((&comparison.first[..], &comparison.second[..]))
                .or_default();
            seeds.push((comparison.seed, comparison.difference, comparison.p, comparison.p_holm));
        }
    }
    pairs
}

/// Compares the entries of one column; the n-th entry is that of the n-th row.
struct ColumnTests<'a> {
    pairs: Pairs<'a>,
    rows: &'a [RowSpec],
}

impl ColumnTests<'_> {
    /// Whether each is tied with one of the highest. `None`: it is one of them, or there is no test.
    fn tied(&self, entries: &[&Entry], highest: &[bool]) -> Vec<Option<bool>> {
        let near = |one: usize, best: usize| {
            let seeds = self.compared(entries, one, best)?;
            Some(!differ(&seeds.iter().map(|pair| (pair.1, pair.3)).collect::<Vec<_>>()))
        };
        let tied = |one: usize| {
            let best = (0..entries.len()).filter(|&other| highest[other] && !highest[one]);
            // `None` is less than `Some(false)`.
            best.map(|best| near(one, best)).max().flatten()
        };
        (0..entries.len()).map(tied).collect()
    }

    /// Whether each differs from a defense. `None`: it is that defense, or there is no test.
    fn different(&self, entries: &[&Entry], defense: &str) -> Vec<Option<bool>> {
        let mut different = vec![None; entries.len()];
        let Some(base) = self.rows.iter().position(|row| row.defense == defense) else {
            return different;
        };
        let others = (0..entries.len()).filter(|&other| other != base);
        let compared: Vec<(usize, Vec<Pair>)> = others
            .filter_map(|other| Some((other, self.compared(entries, other, base)?)))
            .collect();
        // By Holm for the pairs of each seed.
        let mut seeds: BTreeMap<u64, Vec<(usize, f64, f64)>> = BTreeMap::new();
        for (other, of_seeds) in &compared {
            for (seed, difference, p, _) in of_seeds {
                seeds.entry(*seed).or_default().push((*other, *difference, *p));
            }
        }
        let mut adjusted: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
        for of_seed in seeds.values() {
            let plain: Vec<f64> = of_seed.iter().map(|pair| pair.2).collect();
            for ((other, difference, _), p) in of_seed.iter().zip(results::holm(&plain)) {
                adjusted.entry(*other).or_default().push((*difference, p));
            }
        }
        for (other, seeds) in adjusted {
            different[other] = Some(differ(&seeds));
        }
        different
    }

    /// The comparisons of two complete entries, one for each of their seeds. `None` where one is missing.
    fn compared(&self, entries: &[&Entry], one: usize, other: usize) -> Option<Vec<Pair>> {
        let seeds = |at: usize| match &entries[at].cell {
            Cell::Measured(measured) => Some(measured.seeds),
            _ => None,
        };
        let planned = seeds(one).filter(|count| seeds(other) == Some(*count))?;
        let names = |at: usize| {
            let row = &self.rows[at];
            let long = row.recipe.as_ref().map(|recipe| format!("{}, {recipe}", row.defense));
            [Some(row.defense.clone()), long].into_iter().flatten()
        };
        let found = names(one).find_map(|one| {
            names(other).find_map(|other| {
                let forth = self.pairs.get(&(&one[..], &other[..]));
                let back = || self.pairs.get(&(&other[..], &one[..]));
                let reversed = |pair: &Pair| (pair.0, -pair.1, pair.2, pair.3);
                forth.cloned().or_else(|| Some(back()?.iter().map(reversed).collect()))
            })
        })?;
        (found.len() == planned).then_some(found)
    }
}

/// Whether all of these say that there is a difference, and in which direction: differences, with their p-values.
fn differ(seeds: &[(f64, f64)]) -> bool {
    let all = |sign: f64| {
        seeds
            .iter()
            .all(|(difference, p)| difference * sign > 0.0 && *p < LEVEL)
    };
    all(1.0) || all(-1.0)
}
