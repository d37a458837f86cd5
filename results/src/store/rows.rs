//! The form of a cell's JSON tables, and the order of rows in every table.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::row::Row;

/// A cell's table as JSON.
#[derive(Serialize, Deserialize)]
pub(super) struct Rows<T> {
    pub(super) rows: T,
}

/// The order of rows in every table, total but for rows that agree in all of these.
pub(super) fn order(a: &Row, b: &Row) -> Ordering {
    (&a.dataset, &a.network, &a.defense, &a.recipe)
        .cmp(&(&b.dataset, &b.network, &b.defense, &b.recipe))
        .then_with(|| (a.seed, a.checkpoint, a.kind, &a.source).cmp(&(b.seed, b.checkpoint, b.kind, &b.source)))
        .then_with(|| (a.source_checkpoint, &a.attack).cmp(&(b.source_checkpoint, &b.attack)))
        .then_with(|| {
            a.epsilon_value
                .unwrap_or(0.0)
                .total_cmp(&b.epsilon_value.unwrap_or(0.0))
        })
        .then_with(|| a.cell.cmp(&b.cell))
}
