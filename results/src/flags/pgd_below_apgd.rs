//! PGD breaks more images than APGD.

use super::compare::{clearly, compared, same_threat};
use super::flag::Flag;
use super::found::Found;
use crate::row::Row;
use crate::words::Kind;

pub(super) fn pgd_below_apgd(rows: &[Row], places: &[usize], found: &mut Found) {
    let named = |names: &[&str]| -> Vec<usize> {
        let of_kind =
            |&place: &usize| rows[place].kind == Kind::WhiteBox && names.contains(&rows[place].attack_name.as_str());
        places.iter().copied().filter(of_kind).collect()
    };
    for &strong in &named(&["apgd", "apgd-t", "auto-attack"]) {
        for &plain in &named(&["fgsm", "pgd", "mi-fgsm"]) {
            let (apgd, pgd) = (&rows[strong], &rows[plain]);
            if same_threat(apgd, pgd) && apgd.steps >= pgd.steps && clearly(apgd, pgd) {
                found.raise(strong, Flag::PgdBelowApgd, Some(plain), compared(apgd, pgd));
            }
        }
    }
}
