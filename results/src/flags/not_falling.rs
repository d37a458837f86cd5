//! A larger radius, or more steps, does not break more images.

use std::collections::BTreeMap;

use super::compare::{FEW, accuracy, clearly, compared, percent};
use super::flag::Flag;
use super::found::Found;
use crate::row::Row;
use crate::words::Kind;

/// With fewer images, one cannot tell whether an attack breaks none.
const ENOUGH_IMAGES: u64 = 100;

/// An attack without its radius, steps and restarts.
fn method(row: &Row) -> impl Ord + '_ {
    let source = (&row.source, row.source_checkpoint, &row.norm);
    (row.kind, &row.attack_name, &row.loss, &row.start, source)
}

/// Rows that differ only in what `key` leaves out.
fn families<'a, K: Ord>(rows: &'a [Row], places: &[usize], key: impl Fn(&'a Row) -> K) -> Vec<Vec<usize>> {
    let mut families: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for &place in places.iter().filter(|&&place| rows[place].kind != Kind::Natural) {
        families.entry(key(&rows[place])).or_default().push(place);
    }
    families.into_values().filter(|family| family.len() > 1).collect()
}

pub(super) fn not_falling_with_epsilon<'a>(rows: &'a [Row], places: &[usize], found: &mut Found) {
    const FLAG: Flag = Flag::NotFallingWithEpsilon;
    let family = |row: &'a Row| (method(row), row.steps, row.restarts);
    for mut family in families(rows, places, family) {
        let radius = |place: usize| rows[place].epsilon_value.unwrap_or(0.0);
        family.sort_by(|&a, &b| radius(a).total_cmp(&radius(b)));
        rising(rows, &family, FLAG, |a, b| radius(a) < radius(b), found);
        let (first, last) = (family[0], family[family.len() - 1]);
        let enough = rows[first].n == rows[last].n && rows[last].n >= Some(ENOUGH_IMAGES);
        let alive = accuracy(&rows[last]) > FEW;
        if enough && alive && radius(last) >= 4.0 * radius(first) && rows[last].n_correct >= rows[first].n_correct {
            let detail = format!(
                "{} {} at {}, {} at {}",
                rows[last].attack,
                percent(&rows[first]),
                rows[first].epsilon.as_deref().unwrap_or("0"),
                percent(&rows[last]),
                rows[last].epsilon.as_deref().unwrap_or("0"),
            );
            found.raise(last, FLAG, Some(first), detail);
        }
    }
}

pub(super) fn not_falling_with_steps<'a>(rows: &'a [Row], places: &[usize], found: &mut Found) {
    let family = |row: &'a Row| (method(row), row.epsilon_value.map(f64::to_bits), row.restarts);
    for mut family in families(rows, places, family) {
        family.sort_by_key(|&place| rows[place].steps);
        let more = |a: usize, b: usize| rows[a].steps < rows[b].steps;
        rising(rows, &family, Flag::NotFallingWithSteps, more, found);
    }
}

/// Flags each accuracy that is clearly above an earlier one.
fn rising(rows: &[Row], family: &[usize], flag: Flag, before: impl Fn(usize, usize) -> bool, found: &mut Found) {
    for (i, &place) in family.iter().enumerate() {
        let earlier = family[..i].iter().copied().filter(|&earlier| before(earlier, place));
        let lowest = earlier.min_by(|&a, &b| accuracy(&rows[a]).total_cmp(&accuracy(&rows[b])));
        if let Some(lowest) = lowest
            && clearly(&rows[place], &rows[lowest])
        {
            let detail = compared(&rows[place], &rows[lowest]);
            found.raise(place, flag, Some(lowest), detail);
        }
    }
}
