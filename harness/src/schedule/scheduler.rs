//! Runs a plan: every cell that is not finished, parents first, several at once if asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::Result;
use candle_core::Device;
use plan::{Cell, Plan};
use storage::RunFolder;

use super::attempt::Turn;
use super::board::{Board, Next};
use super::fsync_thread::FsyncThread;
use super::options::{Options, Report};
use super::runner::Runner;
use crate::compute::data::AllData;
use crate::panics::{caught, locked};
use crate::progress::Progress;

/// Runs `cells`, parents first, while other processes may run cells in the same folder. Returns once every cell has ended,
/// here or elsewhere.
pub(crate) fn run(
    plan: &Plan,
    cells: &[Cell],
    data: &AllData,
    run_folder: &RunFolder,
    options: &Options,
    progress: &Progress,
) -> Result<Report> {
    let fsync_thread = FsyncThread::start()?;
    let runner = Runner {
        fsync_thread: &fsync_thread,
        plan,
        data,
        root: run_folder.root(),
        process: run_folder.process(),
        options,
        progress,
    };
    let board = Mutex::new(Board::new(plan, cells, &runner)?);
    let changed = Condvar::new();
    let warned = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..options.jobs.max(1) {
            let (runner, board, changed, warned) = (&runner, &board, &changed, &warned);
            scope.spawn(move || {
                let warn = |line: &str| progress.say(line);
                let Some(device) = device_of(worker, &options.device, kernels::device::another, warned, warn) else {
                    return;
                };
                // A panic outside a cell's own code ends the run, because the state it left is unknown.
                if let Err(panic) = caught(|| work(runner, board, changed, &device)) {
                    locked(board).abort(panic.into());
                }
                changed.notify_all();
            });
        }
    });
    fsync_thread.finish()?;
    let board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
    board.into_report()
}

/// The device of a worker. On a GPU every worker has a stream of its own. If the card refuses another one, there are
/// fewer workers (`None`), and the first to be refused says so.
fn device_of(
    worker: usize,
    device: &Device,
    another: impl Fn(&Device) -> candle_core::Result<Device>,
    warned: &AtomicBool,
    warn: impl Fn(&str),
) -> Option<Device> {
    if worker == 0 {
        return Some(device.clone());
    }
    let made = another(device);
    if let Err(error) = &made
        && !warned.swap(true, Ordering::Relaxed)
    {
        warn(&format!(
            "warning: the GPU refuses another stream, so fewer cells than --jobs are computed at a time: {error}"
        ));
    }
    made.ok()
}

/// Computes one cell after another until nothing is left to do.
fn work(runner: &Runner<'_>, board: &Mutex<Board>, changed: &Condvar, device: &Device) {
    while let Some(turn) = next(board, changed, runner.progress) {
        match turn {
            Turn::Cell(cell, others) => {
                let ended = runner.attempt(cell, others, device);
                locked(board).end(cell, ended, runner);
            }
            Turn::Look(cells) => {
                let held = runner.held_elsewhere(&cells);
                locked(board).looked(&cells, held, runner);
            }
        }
        changed.notify_all();
    }
}

/// Waits for a cell whose parents have ended, or for a time to check the cells of other processes.
/// `None`: nothing is left to do.
fn next(board: &Mutex<Board>, changed: &Condvar, progress: &Progress) -> Option<Turn> {
    let mut board = locked(board);
    loop {
        if board.is_finished() {
            return None;
        }
        if progress.interrupted() {
            board.interrupt();
            changed.notify_all();
            return None;
        }
        board = match board.next_turn(progress) {
            Next::Turn(turn) => return Some(turn),
            Next::Wait => changed.wait(board).unwrap_or_else(PoisonError::into_inner),
            Next::WaitFor(time) => {
                changed
                    .wait_timeout(board, time)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_worker_that_does_not_start_says_so_once() {
        let (warned, said) = (AtomicBool::new(false), RefCell::new(Vec::new()));
        let refuse = |_: &Device| Err(candle_core::Error::Msg("CUDA_ERROR_OUT_OF_MEMORY".into()));
        let started = (0..4).filter_map(|worker| {
            let warn = |line: &str| said.borrow_mut().push(line.to_string());
            device_of(worker, &Device::Cpu, refuse, &warned, warn)
        });
        assert_eq!(started.count(), 1);
        let said = said.into_inner();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with("warning: ") && said[0].contains("OUT_OF_MEMORY"),
            "{said:?}"
        );
    }
}
