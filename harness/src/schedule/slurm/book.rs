//! Which jobs of a run are queued, in its folder.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use storage::files;

use super::job::Job;
use super::programs::Slurm;

/// The folder of scripts and logs, in a run's.
pub(super) const SLURM: &str = "slurm";
const JOBS: &str = "jobs.json";

/// The jobs submitted for a run.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Book {
    /// The number of submissions.
    pub(super) submissions: u64,
    /// Jobs that were queued or running when last seen.
    pub(super) jobs: Vec<Job>,
}

impl Book {
    /// Reads it and removes the jobs that Slurm no longer knows.
    pub(super) fn read(root: &Path, slurm: &Slurm) -> Result<Self> {
        let mut book: Self = files::read_json(&root.join(SLURM).join(JOBS))?.unwrap_or_default();
        let active = slurm.active(&book.jobs)?;
        for job in &mut book.jobs {
            let id = job.id.clone();
            job.tasks.retain(|index, _| active.contains(&(id.clone(), *index)));
        }
        book.jobs.retain(|job| !job.tasks.is_empty());
        Ok(book)
    }

    /// Writes it with what was submitted now, after every job, so that an error loses none.
    pub(super) fn note(&self, root: &Path, submissions: u64, made: &[Job]) -> Result<()> {
        let jobs = self.jobs.iter().chain(made).cloned().collect();
        files::write_json(&root.join(SLURM).join(JOBS), &Self { submissions, jobs })
    }

    /// The task that computes a cell, by the cell's key.
    pub(super) fn tasks(&self) -> HashMap<&str, (&str, u32)> {
        let mut tasks = HashMap::new();
        for job in &self.jobs {
            for (index, key) in &job.tasks {
                tasks.insert(key.as_str(), (job.id.as_str(), *index));
            }
        }
        tasks
    }
}
