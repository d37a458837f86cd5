//! The programs of Slurm on this machine: `sbatch`, `squeue`, `scontrol`.

use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::job::Job;
use super::shell::quoted;
use crate::exit::Stop;

/// What is found of them.
pub(super) struct Slurm {
    dry_run: bool,
    present: bool,
    /// Of a task in an array.
    pub(super) largest_index: u32,
}

impl Slurm {
    pub(super) fn find(dry_run: bool) -> Result<Self> {
        let mut slurm = Self {
            dry_run,
            present: true,
            // Slurm's default.
            largest_index: 1000,
        };
        match Command::new("sbatch").arg("--version").output() {
            Ok(_) => {}
            Err(_) if dry_run => {
                slurm.present = false;
                return Ok(slurm);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Stop::usage(
                    "there is no `sbatch` in the PATH: submit from a machine of a Slurm cluster, or use --dry-run to \
                     only write the scripts",
                ));
            }
            Err(error) => return Err(Stop::usage(format!("`sbatch --version` did not start: {error}"))),
        }
        let config = Command::new("scontrol").args(["show", "config"]).output();
        let config = config.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).into_owned(),
        );
        let size = config.lines().find_map(|line| line.trim().strip_prefix("MaxArraySize"));
        let size = size.and_then(|rest| rest.trim_start_matches([' ', '=']).trim().parse::<u32>().ok());
        if let Some(size) = size {
            slurm.largest_index = size.saturating_sub(1);
        }
        Ok(slurm)
    }

    /// Of these jobs, the tasks that are queued or running.
    pub(super) fn active(&self, jobs: &[Job]) -> Result<HashSet<(String, u32)>> {
        if jobs.is_empty() || !self.present {
            return Ok(HashSet::new());
        }
        let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
        let asked = Command::new("squeue")
            .args(["--noheader", "--array", "--format=%F %K", "--jobs", &ids.join(",")])
            .output();
        let answer = asked.map_err(|error| Stop::usage(format!("`squeue` did not start: {error}")))?;
        let complaint = String::from_utf8_lossy(&answer.stderr).trim().to_string();
        // One that has been gone for a while is not known any more.
        if !answer.status.success() && !complaint.contains("Invalid job id") {
            return Err(Stop::usage(format!(
                "squeue does not say what is queued, so nothing was submitted: {complaint}"
            )));
        }
        let text = String::from_utf8_lossy(&answer.stdout);
        let task = |line: &str| {
            let (id, index) = line.trim().split_once(' ')?;
            Some((id.to_string(), index.trim().parse().ok()?))
        };
        Ok(text.lines().filter_map(task).collect())
    }

    /// Submits a script; returns the job's number.
    pub(super) fn submit(&self, script: &Path, after: &[String], out: &mut dyn Write) -> Result<String> {
        let mut options = vec!["--parsable".to_string()];
        if !after.is_empty() {
            options.push(format!("--dependency={}", after.join(",")));
            // What waits for a job that failed would wait for ever.
            options.push("--kill-on-invalid-dep=yes".to_string());
        }
        let shown = options.join(" ");
        let shown = format!("sbatch {shown} {}", quoted(script));
        if self.dry_run {
            writeln!(out, "{shown}")?;
            let name = script.file_stem().unwrap_or_default().to_string_lossy();
            return Ok(format!("<{name}>"));
        }
        let answer = Command::new("sbatch").args(&options).arg(script).output();
        let answer = answer.map_err(|error| Stop::usage(format!("`sbatch` did not start: {error}")))?;
        let id = String::from_utf8_lossy(&answer.stdout);
        // With several clusters, the name of one follows.
        let id = id.trim().split(';').next().unwrap_or_default().to_string();
        if !answer.status.success() || id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Stop::usage(format!(
                "sbatch refuses {}: {}; what was submitted before it stays, and the same command goes on from there",
                script.display(),
                String::from_utf8_lossy(&answer.stderr).trim(),
            )));
        }
        writeln!(out, "{id}: {shown}")?;
        Ok(id)
    }
}
