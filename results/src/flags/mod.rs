//! Flags: signs that a number may say less than it seems to.
//!
//! A flag fails nothing; it is shown beside the number.
//! Some follow from one evaluation and are stored in its row ([`single`]); others from several rows of one checkpoint
//! ([`raise`]). Both are functions of rows alone. The number that is marked is always the one that is likely too high.
//!
//! The signs are those of Carlini et al. 2019 (arXiv:1902.06705), Athalye et al. 2018 (arXiv:1802.00420) and of
//! AutoAttack's own checks (Croce and Hein 2020, arXiv:2003.01690).

mod black_box;
mod compare;
mod cross_entropy_gap;
mod flag;
mod found;
mod not_falling;
mod pgd_below_apgd;
mod raise;
mod single;
#[cfg(test)]
mod tests;

pub use self::flag::{Flag, RaisedFlag, letters};
pub use self::raise::flags;
pub(crate) use self::single::of_row;
