//! Times a cell, for the table of timings. No result depends on it.

use std::time::Instant;

use results::{Timing, TimingKind};
use storage::host;

/// Runs from its start.
pub(crate) struct Stopwatch {
    /// Seconds since 1970.
    started: u64,
    clock: Instant,
}

impl Stopwatch {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self {
            started: host::now(),
            clock: Instant::now(),
        }
    }

    /// The time of a cell that has processed this many images, and the machine it ran on.
    pub(crate) fn timing(&self, key: &str, kind: TimingKind, device: &str, images: u64) -> Timing {
        let seconds = self.clock.elapsed().as_secs_f64();
        Timing {
            cell: key.to_string(),
            kind,
            seconds,
            images_per_second: (seconds > 0.0).then(|| images as f64 / seconds),
            threads: rayon::current_num_threads() as u64,
            host: host::name(),
            cpu: host::processor(),
            device: device.to_string(),
            started: self.started,
            peak_memory: host::peak_memory(),
        }
    }
}
