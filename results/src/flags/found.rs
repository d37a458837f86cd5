//! The flags found so far.

use std::collections::BTreeMap;

use super::flag::Flag;

/// Flags by place and kind; the first reason for each is kept.
#[derive(Default)]
pub(super) struct Found(pub(super) BTreeMap<(usize, Flag), (Option<usize>, String)>);

impl Found {
    pub(super) fn raise(&mut self, place: usize, flag: Flag, other: Option<usize>, detail: String) {
        self.0.entry((place, flag)).or_insert((other, detail));
    }
}
