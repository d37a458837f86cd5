//! Which cells one process computes, and how many at the same time.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use candle_core::Device;
use plan::Cell;
use plan::Plan;
use random::Stream;

use crate::exit::Stop;

/// The cells that a line of a file names by their keys, separated by blanks.
pub(crate) fn named_cells(plan: &Plan, file: &Path, line: usize) -> Result<Vec<Cell>> {
    let text = std::fs::read_to_string(file).map_err(|error| Stop::usage(format!("{}: {error}", file.display())))?;
    let keys = text.lines().nth(line).unwrap_or_default();
    let known: HashMap<&str, Cell> = plan.cells().map(|cell| (plan.identity(cell).0, cell)).collect();
    let mut cells = Vec::new();
    for key in keys.split_whitespace() {
        let cell = known.get(key).ok_or_else(|| {
            Stop::usage(format!(
                "{}: no cell of the matrix has the key {key}; the program or the matrix has changed since this was \
                 submitted: run `rampart submit` again",
                file.display()
            ))
        })?;
        cells.push(*cell);
    }
    if cells.is_empty() {
        return Err(Stop::usage(format!("{} has no cell in line {line}", file.display())));
    }
    Ok(cells)
}

/// Cells to compute at the same time. Small networks leave threads idle, so several share the machine. A large network
/// fills it, and two would need twice the memory.
pub(crate) fn default_jobs(plan: &Plan, device: &Device) -> Result<usize> {
    const SMALL: u64 = 20_000_000;
    // More would wait for each other's launches.
    const ON_ONE_CARD: usize = 4;
    let mut trainings: Vec<_> = plan.trainings.iter().collect();
    trainings.sort_by_key(|training| (&training.network, training.setting.image));
    trainings.dedup_by_key(|training| (&training.network, training.setting.image));
    for training in trainings {
        let network = training.architecture.build(&Device::Cpu, &Stream::new(0))?;
        if network.multiplications()? > SMALL {
            return Ok(1);
        }
    }
    let threads = rayon::current_num_threads();
    Ok(if device.is_cpu() {
        threads
    } else {
        threads.min(ON_ONE_CARD)
    })
}
