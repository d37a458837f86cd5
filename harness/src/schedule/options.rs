//! How a plan is run, and how a run ended.

use std::time::Duration;

use candle_core::Device;
use storage::cell_folder::FailedCell;

/// How a plan is run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) device: Device,
    pub(crate) device_name: String,
    /// Cells computed at a time.
    pub(crate) jobs: usize,
    /// Stop at the first failure.
    pub(crate) fail_fast: bool,
    /// Recompute selected cells.
    pub(crate) force: bool,
    pub(crate) compute: Compute,
    /// A kill loses at most this much work of a cell.
    pub(crate) checkpoint_every: Duration,
    /// This invocation, as the manifest names it.
    pub(crate) invocation: String,
}

/// Whether a run computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compute {
    /// What is not finished.
    Missing,
    /// Nothing: only reports the state of each cell.
    Nothing,
}

/// How a run ended.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Cells computed now.
    pub(crate) computed: usize,
    /// Cells that ended now, with a result or without.
    pub(crate) ended: usize,
    /// Cells that were there already.
    pub(crate) kept: usize,
    /// Cells that other processes finished meanwhile.
    pub(crate) elsewhere: usize,
    /// Cells that were not tried, because a parent is missing and was not requested.
    pub(crate) left: Vec<String>,
    /// Cells without a result, with the reason.
    pub(crate) failed: Vec<(String, FailedCell)>,
    pub(crate) interrupted: bool,
}
