//! Submits a plan to Slurm: a job array for the trainings of each network, one for each attack, and a last job for the
//! tables.
//!
//! A task of an attack's array has the same number as its network's training task, so that Slurm itself starts it as soon
//! as that network is trained (`aftercorr`). A file lists the cells of each task; leases and the cells on disk decide
//! whether they still have to be computed. So a task that Slurm restarts continues where it was, and the same command
//! submits again what failed.

mod arrays;
mod book;
mod job;
mod programs;
mod request;
mod resources;
mod scripts;
mod shell;
mod submit;

pub(crate) use self::request::SubmitRequest;
pub(crate) use self::submit::submit;
