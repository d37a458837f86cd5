//! The worst case of each example over several attacks, from their stored outcomes, without running anything again.

use std::collections::{BTreeMap, BTreeSet};

use crate::row::{Outcome, Row};
use crate::words::{Kind, Status};

/// No evaluation of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no attack of this run is called `{name}`; there are `{}`", known.join("`, `"))]
pub struct UnknownAttack {
    /// The name.
    pub name: String,
    /// Those that there are.
    pub known: Vec<String>,
}

/// One row for each checkpoint that all of the named attacks were run on: an example counts as correct if the network
/// is right about the clean image and no attack broke it. `outcomes` gives a row's outcomes.
///
/// Attacks go by their labels, in any case and with any signs between letters and digits: `pgd-20`. One that was
/// transferred is written `transfer/pgd-20`, one on clean images is contained in any. Where one of the rows failed,
/// the worst case has failed as well.
pub fn worst_of<E: From<UnknownAttack>>(
    rows: &[Row],
    names: &[String],
    label: &str,
    mut outcomes: impl FnMut(&Row) -> Result<Vec<Outcome>, E>,
) -> Result<Vec<Row>, E> {
    for name in names {
        if !rows.iter().any(|row| is_row(row, name)) {
            let known: BTreeSet<String> = rows.iter().map(called).collect();
            let (name, known) = (name.clone(), known.into_iter().collect());
            return Err(UnknownAttack { name, known }.into());
        }
    }
    let mut checkpoints: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let target = (&row.dataset, &row.dataset_digest, &row.network, &row.defense);
        let training = (&row.recipe, row.seed, row.checkpoint);
        checkpoints.entry((target, training)).or_default().push(row);
    }
    let mut worst = Vec::new();
    for rows in checkpoints.values() {
        let chosen: Vec<&Row> = rows
            .iter()
            .copied()
            .filter(|row| names.iter().any(|name| is_row(row, name)))
            .collect();
        if names.iter().all(|name| chosen.iter().any(|row| is_row(row, name))) {
            worst.push(over(&chosen, label, &mut outcomes)?);
        }
    }
    Ok(worst)
}

fn over<E>(rows: &[&Row], label: &str, outcomes: &mut impl FnMut(&Row) -> Result<Vec<Outcome>, E>) -> Result<Row, E> {
    let first = rows[0];
    let cells: Vec<&str> = rows.iter().map(|row| row.cell.as_str()).collect();
    let sum = |of: fn(&Row) -> Option<u64>| rows.iter().map(|row| of(row)).sum::<Option<u64>>();
    let row = Row {
        cell: format!("worst of {}", cells.join(", ")),
        attack: label.to_string(),
        attack_name: "worst-of".to_string(),
        attack_version: None,
        kind: Kind::WhiteBox,
        source: None,
        source_checkpoint: None,
        source_seed: None,
        steps: None,
        step_size: None,
        step_size_value: None,
        restarts: None,
        loss: None,
        start: None,
        forwards: sum(|row| row.forwards),
        backwards: sum(|row| row.backwards),
        queries: None,
        query_budget: None,
        queries_median: None,
        queries_mean: None,
        zero_gradients: None,
        ..first.clone()
    };
    if let Some(failed) = rows.iter().find(|row| row.status == Status::Failed) {
        let reason = failed.error.clone().unwrap_or_default();
        return Ok(row.with_failure(format!("{} failed: {reason}", failed.attack)));
    }
    let mut examples: BTreeMap<u64, (usize, bool)> = BTreeMap::new();
    for row in rows {
        for outcome in outcomes(row)? {
            let (seen, survives) = examples.entry(outcome.example).or_insert((0, true));
            *seen += 1;
            *survives &= outcome.correct
                && outcome
                    .predicted_clean
                    .is_none_or(|predicted| predicted == outcome.label);
        }
    }
    if examples.values().any(|(seen, _)| *seen != rows.len()) {
        return Ok(row.with_failure("the attacks were run on other examples"));
    }
    let correct = examples.values().filter(|(_, survives)| *survives).count();
    Ok(row.with_count(examples.len() as u64, correct as u64))
}

/// How an evaluation is named here.
fn called(row: &Row) -> String {
    let transferred = if row.kind == Kind::Transfer { "transfer/" } else { "" };
    format!("{transferred}{}", plain(&row.attack))
}

fn is_row(row: &Row, name: &str) -> bool {
    is_called(row.kind, &row.attack, name)
}

/// Whether an attack of this kind and label is meant by a name, as [`worst_of`] reads it.
pub fn is_called(kind: Kind, label: &str, name: &str) -> bool {
    let (transferred, name) = match name.trim().split_once('/') {
        Some((kind, name)) if plain(kind) == "transfer" => (true, name),
        _ => (false, name),
    };
    (kind == Kind::Transfer) == transferred && plain(label) == plain(name)
}

fn plain(label: &str) -> String {
    let lower = label.to_lowercase();
    let words = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{outcome, row};

    fn attacked(attack: &str, kind: Kind) -> Row {
        Row {
            attack: attack.to_string(),
            kind,
            ..row(attack)
        }
        .with_count(8, 4)
    }

    /// Of eight images the network is wrong about image 0. PGD breaks 1 to 4 and mends 0, CW breaks 4 to 5, a transfer
    /// image 6.
    fn outcomes(row: &Row) -> Result<Vec<Outcome>, UnknownAttack> {
        let broken: &[u64] = match (row.kind, row.attack.as_str()) {
            (Kind::Transfer, _) => &[0, 6],
            (_, "PGD-20") => &[1, 2, 3, 4],
            (_, "CW") => &[0, 4, 5],
            _ => &[0],
        };
        let of = |example| Outcome {
            label: 3,
            predicted_clean: Some(if example == 0 { 7 } else { 3 }),
            correct: !broken.contains(&example),
            ..outcome(&row.cell, example)
        };
        Ok((0..8).map(of).collect())
    }

    fn worst(rows: &[Row], names: &[&str]) -> Result<Vec<Row>, UnknownAttack> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        worst_of(rows, &names, "worst", outcomes)
    }

    #[test]
    fn an_example_stands_if_every_attack_leaves_it() {
        let rows = [
            attacked("PGD-20", Kind::WhiteBox),
            attacked("CW", Kind::WhiteBox),
            attacked("PGD-20", Kind::Transfer),
        ];
        let correct = |names: &[&str]| worst(&rows, names).unwrap()[0].n_correct.unwrap();
        // PGD alone: it mends image 0, but an attacker would have left it alone.
        assert_eq!(correct(&["pgd-20"]), 3);
        assert_eq!(correct(&["pgd-20", "CW"]), 2);
        assert_eq!(correct(&["PGD 20", "cw", "transfer/pgd-20"]), 1);
        let both = &worst(&rows, &["pgd-20", "cw"]).unwrap()[0];
        assert_eq!(
            (both.n, both.forwards, both.attack.as_str()),
            (Some(8), Some(4200), "worst")
        );
        assert!(both.accuracy_low.unwrap() < 0.25 && both.accuracy_high.unwrap() > 0.25);
    }

    #[test]
    fn what_is_missing_is_said() {
        let rows = [
            attacked("PGD-20", Kind::WhiteBox),
            attacked("CW", Kind::WhiteBox).with_failure("full disk"),
        ];
        let failed = &worst(&rows, &["pgd-20", "cw"]).unwrap()[0];
        assert_eq!(failed.error.as_deref(), Some("CW failed: full disk"));
        let error = worst(&rows, &["pdg"]).unwrap_err().to_string();
        assert_eq!(error, "no attack of this run is called `pdg`; there are `cw`, `pgd-20`");
        // Another checkpoint that lacks one of them has no worst case.
        let other = Row {
            seed: 7,
            ..attacked("PGD-20", Kind::WhiteBox)
        };
        let rows = [rows[0].clone(), attacked("CW", Kind::WhiteBox), other];
        assert_eq!(worst(&rows, &["pgd-20", "cw"]).unwrap().len(), 1);
        assert_eq!(worst(&rows, &["pgd-20"]).unwrap().len(), 2);
    }
}
