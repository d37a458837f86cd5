//! An attack without gradients breaks more images than every attack with gradients.

use super::compare::{ENOUGH_STEPS, accuracy, clearly, compared, same_threat};
use super::flag::Flag;
use super::found::Found;
use crate::row::Row;
use crate::words::Kind;

pub(super) fn black_box_below_white_box(rows: &[Row], places: &[usize], found: &mut Found) {
    for &blind in places {
        let row = &rows[blind];
        let is_blind = row.kind == Kind::Query || (row.kind == Kind::Transfer && !own_source(row));
        if !is_blind {
            continue;
        }
        let seeing = places.iter().copied().filter(|&place| {
            let other = &rows[place];
            other.kind == Kind::WhiteBox
                && same_threat(other, row)
                && other.steps.is_some_and(|steps| steps >= ENOUGH_STEPS)
        });
        let lowest = seeing.min_by(|&a, &b| accuracy(&rows[a]).total_cmp(&accuracy(&rows[b])));
        if let Some(lowest) = lowest
            && clearly(&rows[lowest], row)
        {
            let detail = compared(&rows[lowest], row);
            found.raise(lowest, Flag::BlackBoxBelowWhiteBox, Some(blind), detail);
        }
    }
}

/// Whether the images were crafted on the evaluated network itself.
fn own_source(row: &Row) -> bool {
    let own = format!("{} / {}", row.defense, row.network);
    row.source.as_deref() == Some(&own)
        && row.source_seed == Some(row.seed)
        && row.source_checkpoint == Some(row.checkpoint)
}
