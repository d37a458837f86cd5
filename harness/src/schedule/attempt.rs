//! What a worker does next, and how its attempt at a cell ended.

use plan::Cell;
use storage::cell_folder::FailedCell;
use storage::leases::Holder;

/// What a worker is to do.
pub(super) enum Turn {
    /// Compute this cell.
    Cell(Cell, Others),
    /// See whether other processes still hold these cells.
    Look(Vec<Cell>),
}

/// Whether another process was seen at a cell during this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    Seen,
    NotSeen,
}

/// How an attempt at a cell ended.
pub(super) enum Ended {
    Computed,
    Failed(FailedCell),
    Interrupted,
    /// Another process holds it, or has taken it over.
    Busy(Holder),
    /// Another process has finished it, or failed at it.
    Elsewhere(Option<FailedCell>),
    /// An error that the cell did not cause.
    Broken(anyhow::Error),
}
