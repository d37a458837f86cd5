//! What a user asks to be submitted.

use std::path::PathBuf;

use kernels::device::Precision;

use crate::schedule::request::MatrixRequest;

/// Cells, the resources of their jobs, and the options of `run` in every task.
#[derive(Debug, Clone)]
pub(crate) struct SubmitRequest {
    pub(crate) matrix: MatrixRequest,
    pub(crate) filter: Vec<String>,
    /// The folder of all runs.
    pub(crate) out: PathBuf,
    pub(crate) data_dir: Option<PathBuf>,
    /// Replace the tables of another plan in the same folder.
    pub(crate) replace: bool,
    /// Write the scripts, but submit nothing.
    pub(crate) dry_run: bool,
    pub(crate) partition: Option<String>,
    pub(crate) time: Option<String>,
    pub(crate) cpus_per_task: Option<u32>,
    pub(crate) gres: Option<String>,
    /// Tasks of one array that run at the same time, at most.
    pub(crate) array_limit: Option<u32>,
    /// Other options of `sbatch`, perhaps for some jobs only.
    pub(crate) sbatch: Vec<String>,
    pub(crate) device: String,
    pub(crate) precision: Option<Precision>,
    pub(crate) deterministic: bool,
    pub(crate) stale_after: f64,
}
