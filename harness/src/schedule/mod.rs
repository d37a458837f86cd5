//! Decides which cells to compute when, here or on a cluster, and shows the progress.

mod forecast;
mod jobs;
pub(crate) mod request;
pub(crate) mod slurm;
mod status;
mod summary;
mod watch;

pub(crate) use self::forecast::Forecast;
pub(crate) use self::jobs::{default_jobs, named_cells};
pub(crate) use self::request::{MatrixRequest, select};
pub(crate) use self::status::{RunProgress, run_folder};
pub(crate) use self::summary::{exit_of, print_report};
pub(crate) use self::watch::watch;
