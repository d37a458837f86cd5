//! From command-line flags to the arguments of the lower layers.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use candle_core::Device;

use super::args::{AttackArgs, DeviceArgs, MatrixArgs, NetworkArgs, RunArgs};
use crate::compute::evaluation;
use crate::compute::external::NetworkFile;
use crate::device;
use crate::exit::Stop;
use crate::schedule::MatrixRequest;

impl MatrixArgs {
    pub(super) fn request(&self) -> MatrixRequest {
        MatrixRequest {
            file: self.matrix.clone(),
            set: self.set.clone(),
            limit: self.limit,
            seed: self.seed,
        }
    }
}

impl DeviceArgs {
    /// Configures GPUs for the whole process, and opens the device. Returns its name in the table of timings as well.
    pub(super) fn open(&self) -> Result<(Device, String)> {
        device::configure(self.precision, self.deterministic);
        device::parse(&self.device)
    }
}

impl NetworkArgs {
    pub(super) fn file(&self) -> NetworkFile {
        NetworkFile {
            checkpoint: self.checkpoint.clone(),
            model: self.model.clone(),
            ignore: self.ignore.clone(),
            entry: self.entry.clone(),
            mean: self.mean.clone(),
            std: self.std.clone(),
        }
    }
}

impl RunArgs {
    /// Checks the options that need no matrix and configures the process by them. Returns the time between checkpoints.
    pub(super) fn configure(&self) -> Result<Duration> {
        match self.jobs {
            Some(0) => return Err(Stop::usage("--jobs must be at least 1")),
            Some(jobs) if jobs > device::MOST_THREADS => {
                return Err(Stop::usage(format!("--jobs must be at most {}", device::MOST_THREADS)));
            }
            _ => {}
        }
        device::set_threads(self.threads)?;
        let checkpoint_every = Duration::try_from_secs_f64(self.checkpoint_every)
            .map_err(|_| Stop::usage("--checkpoint-every must be a non-negative number of seconds"))?;
        match self.evaluation_batch {
            Some(0) => return Err(Stop::usage("--evaluation-batch must be at least 1")),
            Some(examples) => evaluation::set_batch(examples),
            None => {}
        }
        if !(self.stale_after.is_finite() && self.stale_after >= 1.0) {
            return Err(Stop::usage("--stale-after must be at least 1 second"));
        }
        Ok(checkpoint_every)
    }
}

impl AttackArgs {
    /// Checks the options that need no network.
    pub(super) fn check(&self) -> Result<()> {
        if self.limit == Some(0) {
            return Err(Stop::usage(
                "--limit must be at least 1: with 0 there is nothing to attack",
            ));
        }
        if self.save_examples.is_some() && self.attack.len() != 1 {
            return Err(Stop::usage(
                "--save-examples keeps the images of one attack; name it with one --attack",
            ));
        }
        // A file that cannot be written should be known before hours of computing.
        for file in self.save_examples.iter().chain(&self.out) {
            if !std::path::absolute(file)?.parent().is_some_and(Path::is_dir) {
                return Err(Stop::usage(format!("{}: its folder does not exist", file.display())));
            }
        }
        Ok(())
    }

    /// The network on which images are made, if not the one under attack.
    pub(super) fn source_file(&self) -> Option<NetworkFile> {
        let checkpoint = self.source.clone()?;
        Some(NetworkFile {
            checkpoint,
            model: self.source_model.clone().unwrap_or_else(|| self.network.model.clone()),
            entry: self.source_entry.clone(),
            ..self.network.file()
        })
    }
}
