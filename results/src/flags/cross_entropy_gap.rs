//! Cross entropy breaks far fewer images than the margin.

use std::collections::BTreeSet;

use super::compare::{ENOUGH_STEPS, accuracy, clearly, compared, same_threat};
use super::flag::Flag;
use super::found::Found;
use crate::row::Row;
use crate::words::Kind;

/// How far cross entropy may fall behind margin losses. As others report for ResNet-18 (CIFAR-10, 8/255; sources
/// in docs/evaluation.md) PGD-20 is 1.6 points above CW after adversarial training, 2.3 to 3.1 points after TRADES and
/// 4.7 to 5.7 points after MART; PGD-10 is 4.1, 4.0 and 7.2 points above AutoAttack.
const GAP: f64 = 0.045;

pub(super) fn cross_entropy_gap(rows: &[Row], places: &[usize], found: &mut Found) {
    let on_margin = |row: &Row| {
        let loss = row.loss.as_deref().unwrap_or_default();
        let named = ["auto-attack", "apgd-t", "fab"].contains(&row.attack_name.as_str());
        named || ["cw", "margin", "dlr"].iter().any(|margin| loss.starts_with(margin))
    };
    let white_box: BTreeSet<usize> = places
        .iter()
        .copied()
        .filter(|&place| rows[place].kind == Kind::WhiteBox)
        .collect();
    for &place in &white_box {
        let row = &rows[place];
        if row.loss.as_deref() != Some("cross-entropy") || row.steps.is_none_or(|steps| steps < ENOUGH_STEPS) {
            continue;
        }
        let margins = white_box
            .iter()
            .copied()
            .filter(|&margin| on_margin(&rows[margin]) && same_threat(&rows[margin], row));
        let lowest = margins.min_by(|&a, &b| accuracy(&rows[a]).total_cmp(&accuracy(&rows[b])));
        if let Some(lowest) = lowest
            && accuracy(row) - accuracy(&rows[lowest]) > GAP + 1e-9
            && clearly(row, &rows[lowest])
        {
            let detail = compared(row, &rows[lowest]);
            found.raise(place, Flag::CrossEntropyGap, Some(lowest), detail);
        }
    }
}
