//! Which differences between two defenses are more than chance: McNemar's test on the same examples.

use std::collections::BTreeMap;

use crate::row::{Outcome, Row};
use crate::statistics::{holm, mcnemar};
use crate::table::table;
use crate::words::{Checkpoint, Kind, Status};

table! {
    /// Two defenses under one attack, example by example.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Comparison {
        /// Name of the data set.
        pub dataset: String,
        /// Name of the network.
        pub network: String,
        /// The checkpoint attacked.
        pub checkpoint: Checkpoint,
        /// Seed of both trainings.
        pub seed: u64,
        /// Label of the attack.
        pub attack: String,
        /// Natural, white-box, query or transfer.
        pub kind: Kind,
        /// Label of the source of a transfer.
        pub source: Option<String>,
        /// Label of one defense.
        pub first: String,
        /// Label of the other.
        pub second: String,
        /// Examples.
        pub n: u64,
        /// Examples that only the first gets right.
        pub only_first: u64,
        /// Examples that only the second gets right.
        pub only_second: u64,
        /// Accuracy of the first minus that of the second, in percentage points.
        pub difference: f64,
        /// McNemar's two-sided exact p-value.
        pub p: f64,
        /// The same by Holm, for all pairs under this attack with this seed.
        pub p_holm: f64,
    }
}

/// Compares every pair of defenses that were attacked alike. `outcomes` gives a row's outcomes; pairs whose examples
/// are not the same are left out. In the order of the rows.
pub fn compare<E>(
    rows: &[Row],
    mut outcomes: impl FnMut(&Row) -> Result<Vec<Outcome>, E>,
) -> Result<Vec<Comparison>, E> {
    let mut groups: BTreeMap<_, (usize, Vec<&Row>)> = BTreeMap::new();
    for (place, row) in rows.iter().enumerate() {
        if row.status != Status::Done {
            continue;
        }
        let target = (
            &row.dataset,
            &row.dataset_digest,
            &row.network,
            row.checkpoint,
            row.seed,
        );
        let attack = (
            row.kind,
            &row.attack,
            &row.attack_name,
            &row.source,
            row.epsilon_value.map(f64::to_bits),
        );
        groups
            .entry((target, attack))
            .or_insert((place, Vec::new()))
            .1
            .push(row);
    }
    let mut groups: Vec<(usize, Vec<&Row>)> = groups.into_values().collect();
    groups.sort_by_key(|(place, _)| *place);
    let mut comparisons = Vec::new();
    for (_, rows) in groups.into_iter().filter(|(_, rows)| rows.len() > 1) {
        let mut columns = Vec::new();
        for row in &rows {
            let mut column: Vec<(u64, bool)> = outcomes(row)?
                .iter()
                .map(|outcome| (outcome.example, outcome.correct))
                .collect();
            column.sort_unstable();
            columns.push(column);
        }
        let first = comparisons.len();
        for (i, one) in rows.iter().enumerate() {
            for (j, other) in rows.iter().enumerate().skip(i + 1) {
                comparisons.extend(pair(one, other, &columns[i], &columns[j], &rows));
            }
        }
        let plain: Vec<f64> = comparisons[first..]
            .iter()
            .map(|comparison: &Comparison| comparison.p)
            .collect();
        for (comparison, p) in comparisons[first..].iter_mut().zip(holm(&plain)) {
            comparison.p_holm = p;
        }
    }
    Ok(comparisons)
}

fn pair(one: &Row, other: &Row, first: &[(u64, bool)], second: &[(u64, bool)], all: &[&Row]) -> Option<Comparison> {
    if first.is_empty()
        || !first
            .iter()
            .map(|example| example.0)
            .eq(second.iter().map(|example| example.0))
    {
        return None;
    }
    let only =
        |yes: &[(u64, bool)], no: &[(u64, bool)]| yes.iter().zip(no).filter(|(yes, no)| yes.1 && !no.1).count() as u64;
    let (only_first, only_second) = (only(first, second), only(second, first));
    let name = |row: &Row| match all.iter().filter(|other| other.defense == row.defense).count() {
        1 => row.defense.clone(),
        _ => format!("{}, {}", row.defense, row.recipe),
    };
    let p = mcnemar(only_first, only_second);
    Some(Comparison {
        dataset: one.dataset.clone(),
        network: one.network.clone(),
        checkpoint: one.checkpoint,
        seed: one.seed,
        attack: one.attack.clone(),
        kind: one.kind,
        source: one.source.clone(),
        first: name(one),
        second: name(other),
        n: first.len() as u64,
        only_first,
        only_second,
        difference: 100.0 * (only_first as f64 - only_second as f64) / first.len() as f64,
        p,
        p_holm: p,
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::fixtures::{outcome, row};

    /// Of ten images A gets all, B the first eight, C none right but the last: A and B differ on two, A and C on nine,
    /// B and C on nine, of which one is C's.
    #[test]
    fn pairs_worked_by_hand() {
        let rows = ["A", "B", "C"].map(|defense| Row {
            defense: defense.to_string(),
            ..row(defense).with_count(10, 5)
        });
        let right = |defense: &str, example: u64| match defense {
            "A" => true,
            "B" => example < 8,
            _ => example == 9,
        };
        let outcomes = |row: &Row| {
            let of = |example| Outcome {
                correct: right(&row.defense, example),
                ..outcome(&row.cell, example)
            };
            Ok::<_, Infallible>((0..10).rev().map(of).collect())
        };
        let found = compare(&rows, outcomes).unwrap();
        let numbers: Vec<_> = found
            .iter()
            .map(|comparison| {
                (
                    comparison.first.as_str(),
                    comparison.second.as_str(),
                    comparison.only_first,
                    comparison.only_second,
                    comparison.difference,
                )
            })
            .collect();
        assert_eq!(
            numbers,
            [("A", "B", 2, 0, 20.0), ("A", "C", 9, 0, 90.0), ("B", "C", 8, 1, 70.0)]
        );
        // 2/2², 2/2⁹ and 2·(1 + 9)/2⁹; by Holm times 1, 3 and 2.
        for (comparison, (p, adjusted)) in
            found
                .iter()
                .zip([(0.5, 0.5), (1.0 / 256.0, 3.0 / 256.0), (5.0 / 128.0, 10.0 / 128.0)])
        {
            assert!(
                (comparison.p - p).abs() < 1e-12 && (comparison.p_holm - adjusted).abs() < 1e-12,
                "{comparison:?}"
            );
        }
    }

    #[test]
    fn other_attacks_other_seeds_and_other_examples_are_not_compared() {
        let one = Row {
            defense: "A".into(),
            ..row("a").with_count(2, 1)
        };
        let all = |row: &Row| {
            let shift = if row.cell == "elsewhere" { 100 } else { 0 };
            Ok::<_, Infallible>((0..2).map(|example| outcome(&row.cell, example + shift)).collect())
        };
        let other = |change: fn(Row) -> Row| {
            change(Row {
                defense: "B".into(),
                ..row("b").with_count(2, 1)
            })
        };
        let count = |two: Row| compare(&[one.clone(), two], all).unwrap().len();
        assert_eq!(count(other(|row| row)), 1);
        assert_eq!(count(other(|row| Row { seed: 1, ..row })), 0);
        assert_eq!(
            count(other(|row| Row {
                attack: "FGSM".into(),
                ..row
            })),
            0
        );
        assert_eq!(
            count(other(|row| Row {
                source: Some("x".into()),
                ..row
            })),
            0
        );
        assert_eq!(count(other(|row| row.with_failure("no"))), 0);
        assert_eq!(
            count(other(|row| Row {
                cell: "elsewhere".into(),
                ..row
            })),
            0
        );
    }
}
