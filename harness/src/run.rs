//! Runs a plan: every cell that is not finished, parents first, several at once if asked.

mod fsync_thread;
mod runner;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::Device;
use plan::CellName;
use plan::matrix::DatasetEntry;
use plan::{Cell, Plan};
use runs::RunFolder;
use runs::cell_folder::{self, FailedCell, State};
use runs::leases::Holder;

use self::fsync_thread::FsyncThread;
use self::runner::Runner;
use crate::data::Data;
use crate::panics::{caught, locked};
use crate::progress::Progress;
use crate::training::clean_up;

/// Data sets by how the matrix cuts them.
pub(crate) type AllData = BTreeMap<String, Arc<Data>>;

/// The key of a data set's cut among [`AllData`].
pub(crate) fn data_key(entry: &DatasetEntry) -> String {
    serde_json::to_string(entry).expect("plain data")
}

/// How a plan is run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) device: Device,
    pub(crate) device_name: String,
    /// Cells at work at once.
    pub(crate) jobs: usize,
    /// Stop at the first failure.
    pub(crate) fail_fast: bool,
    /// Recompute selected cells.
    pub(crate) force: bool,
    pub(crate) compute: Compute,
    /// A cell that is stopped loses at most so much work.
    pub(crate) checkpoint_every: Duration,
    /// This invocation, as the manifest names it.
    pub(crate) invocation: String,
}

/// Whether a run computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compute {
    /// What is not finished.
    Missing,
    /// Nothing: it only sees how the cells stand.
    Nothing,
}

/// How a run ended.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Cells computed now.
    pub(crate) computed: usize,
    /// Cells that ended now, with a result or without.
    pub(crate) ended: usize,
    /// Cells that were there already.
    pub(crate) kept: usize,
    /// Cells that other processes finished meanwhile.
    pub(crate) elsewhere: usize,
    /// Cells that were not tried, because a parent is not there and not asked for.
    pub(crate) left: Vec<String>,
    /// Cells without a result, with the reason.
    pub(crate) failed: Vec<(String, FailedCell)>,
    pub(crate) interrupted: bool,
}

/// Runs `cells` (parents first) and what the plan says of them, beside whoever else works in the
/// folder. Returns once every cell has ended, here or elsewhere.
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
                // A panic outside of a cell's own code ends the run: nobody knows what it left undone.
                if let Err(panic) = caught(|| work(runner, board, changed, &device)) {
                    let mut board = locked(board);
                    board.broken.get_or_insert(panic.into());
                    board.stopped = true;
                }
                changed.notify_all();
            });
        }
    });
    fsync_thread.finish()?;
    let board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
    match board.broken {
        Some(error) => Err(error),
        None => Ok(board.report),
    }
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

/// Does one turn after another until nothing is left to do.
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

/// What a worker is to do.
enum Turn {
    /// This cell, at which others have been or not.
    Cell(Cell, Others),
    /// Look how these are getting on, at which others work.
    Look(Vec<Cell>),
}

/// Whether others were seen at a cell during this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Seen,
    NotSeen,
}

/// Between two looks at the cells of others: at first, and at most.
const LOOK: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Between two lines that say what is waited for.
const SAY: Duration = Duration::from_secs(60);

/// Waits for a cell whose parents have ended, or for a time to look at the cells of others.
/// `None`: nothing is left to do.
fn next(board: &Mutex<Board>, changed: &Condvar, progress: &Progress) -> Option<Turn> {
    let mut board = locked(board);
    loop {
        if board.stopped || (board.ready.is_empty() && board.blocked.is_empty() && board.elsewhere.is_empty()) {
            return None;
        }
        if progress.interrupted() {
            (board.report.interrupted, board.stopped) = (true, true);
            changed.notify_all();
            return None;
        }
        if let Some(cell) = board.ready.pop_first() {
            board.working += 1;
            let others = if board.seen.contains(&cell) {
                Others::Seen
            } else {
                Others::NotSeen
            };
            return Some(Turn::Cell(cell, others));
        }
        if board.elsewhere.is_empty() || board.looking {
            board = changed.wait(board).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let rest = board.pause.saturating_sub(board.looked.elapsed());
        if rest.is_zero() {
            board.looking = true;
            board.say_what_is_waited_for(progress);
            return Some(Turn::Look(board.elsewhere.keys().copied().collect()));
        }
        board = changed
            .wait_timeout(board, rest)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}

/// What is left and what has ended.
struct Board {
    /// Cells that wait for so many parents.
    blocked: BTreeMap<Cell, usize>,
    /// The cells that wait for a parent.
    children: BTreeMap<Cell, Vec<Cell>>,
    /// Cells to compute now, in this order.
    ready: BTreeSet<Cell>,
    /// Cells at which others work, and who.
    elsewhere: BTreeMap<Cell, Holder>,
    /// Cells at which others were seen.
    seen: BTreeSet<Cell>,
    /// Cells at work here.
    working: usize,
    /// Ended cells, with the reason if they failed.
    ended: BTreeMap<Cell, Option<FailedCell>>,
    report: Report,
    stopped: bool,
    /// An error that no cell can be blamed for.
    broken: Option<anyhow::Error>,
    /// A worker is looking at the cells of others.
    looking: bool,
    looked: Instant,
    pause: Duration,
    said: Option<Instant>,
}

/// How an attempt at a cell ended.
enum Ended {
    Computed,
    Failed(FailedCell),
    Interrupted,
    /// Somebody else is at it, or has taken it over.
    Busy(Holder),
    /// Somebody else has finished it, or failed at it.
    Elsewhere(Option<FailedCell>),
    /// An error that the cell cannot be blamed for.
    Broken(anyhow::Error),
}

impl Board {
    fn new(plan: &Plan, cells: &[Cell], runner: &Runner<'_>) -> Result<Self> {
        let mut board = Self {
            blocked: BTreeMap::new(),
            children: BTreeMap::new(),
            ready: BTreeSet::new(),
            elsewhere: BTreeMap::new(),
            seen: BTreeSet::new(),
            working: 0,
            ended: BTreeMap::new(),
            report: Report::default(),
            stopped: false,
            broken: None,
            looking: false,
            looked: Instant::now(),
            pause: LOOK[0],
            said: None,
        };
        let asked: BTreeSet<Cell> = cells.iter().copied().collect();
        let mut left = Vec::new();
        for &cell in cells {
            let folder = plan.folder(runner.root, cell);
            if runner.options.force {
                cell_folder::remove(&folder)?;
            }
            match cell_folder::cell_state(plan, runner.root, cell) {
                State::Done => {
                    // A kill between a cell's end and its tidying leaves something.
                    clean_up(&folder);
                    tidy_temporary(&folder)?;
                    board.report.kept += 1;
                    board.ended.insert(cell, None);
                    runner.progress.ended();
                }
                State::Failed(failed) if failed.repeatable || runner.options.compute == Compute::Nothing => {
                    let slug = plan.identity(cell).1.to_string();
                    board.report.failed.push((slug, failed.clone()));
                    board.ended.insert(cell, Some(failed));
                    runner.progress.ended();
                }
                State::Damaged(reason) => {
                    runner
                        .progress
                        .say(&format!("warning: {reason}; the cell is made anew"));
                    left.push(cell);
                }
                State::New | State::Begun | State::Failed(_) => left.push(cell),
            }
        }
        for cell in left {
            // Parents that were not asked for belong to somebody else.
            for parent in plan.parents(cell) {
                if !asked.contains(&parent) && !board.ended.contains_key(&parent) {
                    match cell_folder::cell_state(plan, runner.root, parent) {
                        State::Done => board.ended.insert(parent, None),
                        State::Failed(failed) => board.ended.insert(parent, Some(failed)),
                        _ => None,
                    };
                }
            }
            let cause = |parent: &Cell| Some((*parent, board.ended.get(parent)?.clone()?));
            if let Some((parent, cause)) = plan.parents(cell).iter().find_map(cause) {
                board.fail_child(cell, parent, &cause, runner);
                continue;
            }
            let parents = plan.parents(cell);
            let waits: Vec<Cell> = parents.into_iter().filter(|it| !board.ended.contains_key(it)).collect();
            if runner.options.compute == Compute::Nothing || waits.iter().any(|it| !asked.contains(it)) {
                board.report.left.push(plan.identity(cell).1.to_string());
                runner.progress.ended();
            } else if waits.is_empty() {
                board.ready.insert(cell);
            } else {
                board.blocked.insert(cell, waits.len());
                for parent in waits {
                    board.children.entry(parent).or_default().push(cell);
                }
            }
        }
        Ok(board)
    }

    fn end(&mut self, cell: Cell, ended: Ended, runner: &Runner<'_>) {
        self.working -= 1;
        self.pause = LOOK[0];
        match ended {
            Ended::Computed => {
                self.report.computed += 1;
                self.report.ended += 1;
                self.close(cell, None, runner);
            }
            Ended::Elsewhere(failed) => {
                match &failed {
                    None => self.report.elsewhere += 1,
                    Some(failed) => {
                        let slug = runner.plan.identity(cell).1.to_string();
                        self.report.failed.push((slug, failed.clone()));
                    }
                }
                self.close(cell, failed, runner);
            }
            Ended::Failed(failed) => {
                self.report.ended += 1;
                let slug = runner.plan.identity(cell).1.to_string();
                runner.progress.say(&format!("failed: {slug}: {}", failed.error));
                self.report.failed.push((slug, failed.clone()));
                self.close(cell, Some(failed), runner);
                self.stopped |= runner.options.fail_fast;
            }
            Ended::Busy(holder) => {
                self.seen.insert(cell);
                self.elsewhere.insert(cell, holder);
            }
            Ended::Interrupted => {
                self.report.interrupted = true;
                self.stopped = true;
            }
            Ended::Broken(error) => {
                self.broken.get_or_insert(error);
                self.stopped = true;
            }
        }
    }

    /// Frees the cells that waited for this one, or fails them with it.
    fn close(&mut self, cell: Cell, failed: Option<FailedCell>, runner: &Runner<'_>) {
        runner.progress.ended();
        self.ended.insert(cell, failed.clone());
        if let Some(cause) = failed {
            self.fail_children(cell, &cause, runner);
            return;
        }
        for child in self.children.remove(&cell).unwrap_or_default() {
            let Some(waits) = self.blocked.get_mut(&child) else {
                continue;
            };
            if *waits == 1 {
                self.blocked.remove(&child);
                self.ready.insert(child);
            } else {
                *waits -= 1;
            }
        }
    }

    /// Fails the cells that waited for a failed one, and those that waited for them.
    fn fail_children(&mut self, cell: Cell, cause: &FailedCell, runner: &Runner<'_>) {
        for child in self.children.remove(&cell).unwrap_or_default() {
            if self.blocked.remove(&child).is_some() {
                let cause = self.fail_child(child, cell, cause, runner);
                self.fail_children(child, &cause, runner);
            }
        }
    }

    /// An evaluation of a network that could not be trained has failed as well, and a training whose teacher could not
    /// be.
    fn fail_child(&mut self, cell: Cell, parent: Cell, cause: &FailedCell, runner: &Runner<'_>) -> FailedCell {
        let failed = FailedCell {
            error: format!("{} failed: {}", runner.plan.identity(parent).1, cause.error),
            integrity: false,
            ..cause.clone()
        };
        self.report.ended += 1;
        let slug = runner.plan.identity(cell).1.to_string();
        runner.progress.say(&format!("failed: {slug}: {}", failed.error));
        if let Err(error) = runner.fail_alone(cell, &failed) {
            // A full disk, say: the run cannot go on, and finished cells are safe.
            self.broken.get_or_insert(error);
            self.stopped = true;
        }
        self.report.failed.push((slug, failed.clone()));
        self.ended.insert(cell, Some(failed.clone()));
        runner.progress.ended();
        failed
    }

    /// Cells that nobody holds any longer are tried here: they have ended, or are to be taken over.
    fn looked(&mut self, cells: &[Cell], held: Result<BTreeMap<Cell, Holder>>, runner: &Runner<'_>) {
        self.looking = false;
        self.looked = Instant::now();
        let mut held = match held {
            Ok(held) => held,
            // The folder may be back at the next look; if not, a cell will say so.
            Err(error) => {
                runner.progress.say(&format!("warning: {error:#}"));
                return;
            }
        };
        self.pause = (self.pause * 2).min(LOOK[1]);
        for cell in cells {
            self.elsewhere.remove(cell);
            match held.remove(cell) {
                Some(holder) => {
                    self.elsewhere.insert(*cell, holder);
                }
                None => {
                    self.ready.insert(*cell);
                    self.pause = LOOK[0];
                }
            }
        }
    }

    /// Once in a while, where nothing else is to do.
    fn say_what_is_waited_for(&mut self, progress: &Progress) {
        // Two looks, and it is no cell of a few milliseconds.
        let soon = self.pause < LOOK[1] && self.said.is_none();
        if self.working > 0 || soon || self.said.is_some_and(|it| it.elapsed() < SAY) {
            return;
        }
        let Some(holder) = self.elsewhere.values().next() else {
            return;
        };
        let more = match self.elsewhere.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        self.said = Some(Instant::now());
        let cell = holder.work.cell().map_or("the tables", CellName::as_str);
        progress.say(&format!("waiting for {cell} ({holder}){more}"));
    }
}

/// Removes the temporary files of killed processes.
pub(crate) fn tidy_temporary(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    results::atomic::clean(folder).with_context(|| format!("cannot clean up {}", folder.display()))
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
