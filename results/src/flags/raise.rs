//! Every flag of a run.

use std::collections::BTreeMap;

use super::black_box::black_box_below_white_box;
use super::cross_entropy_gap::cross_entropy_gap;
use super::flag::RaisedFlag;
use super::found::Found;
use super::not_falling::{not_falling_with_epsilon, not_falling_with_steps};
use super::pgd_below_apgd::pgd_below_apgd;
use super::single::{detail, of_row};
use crate::row::Row;
use crate::words::Status;

/// Every flag of a run: those of each row, and those that rows of one checkpoint raise together. In the order of the
/// rows; a row has each flag once at most.
pub fn flags(rows: &[Row]) -> Vec<RaisedFlag> {
    let mut found = Found::default();
    let mut checkpoints: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (place, row) in rows.iter().enumerate() {
        if row.status != Status::Done || row.accuracy.is_none() {
            continue;
        }
        for flag in of_row(row) {
            found.raise(place, flag, None, detail(row, flag));
        }
        let target = (
            (&row.dataset, &row.dataset_digest, &row.network, &row.defense),
            (&row.recipe, row.seed, row.checkpoint),
        );
        checkpoints.entry(target).or_default().push(place);
    }
    for places in checkpoints.values() {
        pgd_below_apgd(rows, places, &mut found);
        black_box_below_white_box(rows, places, &mut found);
        not_falling_with_epsilon(rows, places, &mut found);
        not_falling_with_steps(rows, places, &mut found);
        cross_entropy_gap(rows, places, &mut found);
    }
    let raised = found.0.into_iter().map(|((place, flag), (other, detail))| {
        let row = &rows[place];
        RaisedFlag {
            cell: row.cell.clone(),
            dataset: row.dataset.clone(),
            network: row.network.clone(),
            defense: row.defense.clone(),
            seed: row.seed,
            checkpoint: row.checkpoint,
            attack: row.attack.clone(),
            flag,
            other: other.map(|other: usize| rows[other].cell.clone()),
            detail,
        }
    });
    raised.collect()
}
