//! Decides which cells to compute when, here or on a cluster, and shows the progress.

mod attempt;
mod board;
mod forecast;
mod fsync_thread;
mod jobs;
mod options;
pub(crate) mod request;
mod runner;
mod scheduler;
pub(crate) mod slurm;
mod status;
mod summary;
mod watch;

pub(crate) use self::forecast::Forecast;
pub(crate) use self::jobs::{default_jobs, named_cells};
pub(crate) use self::options::{Compute, Options};
pub(crate) use self::request::{MatrixRequest, select};
pub(crate) use self::scheduler::run;
pub(crate) use self::status::{RunProgress, run_folder};
pub(crate) use self::summary::{exit_of, print_report};
pub(crate) use self::watch::watch;
