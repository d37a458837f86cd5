//! What is left to run and what has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use plan::{Cell, CellName, Plan};
use storage::cell_folder::{self, FailedCell, State};
use storage::files::remove_temporary;
use storage::leases::Holder;

use super::attempt::{Ended, Others, Turn};
use super::options::{Compute, Report};
use super::runner::Runner;
use crate::compute::training::clean_up;
use crate::progress::Progress;

/// Time between two checks of other processes' cells: initially, and at most.
const POLL_INTERVAL: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Time between two messages that say what is being waited for.
const MESSAGE_INTERVAL: Duration = Duration::from_secs(60);

/// What is left and what has ended.
pub(super) struct Board {
    /// The number of unfinished parents of each waiting cell.
    blocked: BTreeMap<Cell, usize>,
    /// The cells that wait for a parent.
    children: BTreeMap<Cell, Vec<Cell>>,
    /// Cells to compute now, in this order.
    ready: BTreeSet<Cell>,
    /// Cells that other processes hold, and which processes.
    elsewhere: BTreeMap<Cell, Holder>,
    /// Cells at which another process was seen.
    seen: BTreeSet<Cell>,
    /// Cells computed here now.
    working: usize,
    /// Ended cells, with the reason if they failed.
    ended: BTreeMap<Cell, Option<FailedCell>>,
    report: Report,
    stopped: bool,
    /// An error that no cell caused.
    broken: Option<anyhow::Error>,
    /// A worker is checking the cells of other processes.
    looking: bool,
    looked: Instant,
    pause: Duration,
    said: Option<Instant>,
}

/// What a worker does next.
pub(super) enum Next {
    Turn(Turn),
    /// Wait for a change.
    Wait,
    /// Wait for a change, at most this long.
    WaitFor(Duration),
}

impl Board {
    /// Sorts the cells by what is to be done with each.
    pub(super) fn new(plan: &Plan, cells: &[Cell], runner: &Runner<'_>) -> Result<Self> {
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
            pause: POLL_INTERVAL[0],
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
                    // A kill between the end of a cell and its cleanup leaves files behind.
                    clean_up(&folder);
                    remove_temporary(&folder)?;
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
                        .say(&format!("warning: {reason}; the cell is computed again"));
                    left.push(cell);
                }
                State::New | State::Begun | State::Failed(_) => left.push(cell),
            }
        }
        for cell in left {
            // Parents that were not requested are left to other processes.
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
            let waits: Vec<Cell> = parents
                .into_iter()
                .filter(|parent| !board.ended.contains_key(parent))
                .collect();
            if runner.options.compute == Compute::Nothing || waits.iter().any(|parent| !asked.contains(parent)) {
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

    /// Whether nothing is left to do.
    pub(super) fn is_finished(&self) -> bool {
        self.stopped || (self.ready.is_empty() && self.blocked.is_empty() && self.elsewhere.is_empty())
    }

    /// No further cell is started, because the user asked to stop.
    pub(super) fn interrupt(&mut self) {
        self.report.interrupted = true;
        self.stopped = true;
    }

    /// No further cell is started, because of an error that no cell caused.
    pub(super) fn abort(&mut self, error: anyhow::Error) {
        self.broken.get_or_insert(error);
        self.stopped = true;
    }

    /// How the run ended.
    pub(super) fn into_report(self) -> Result<Report> {
        match self.broken {
            Some(error) => Err(error),
            None => Ok(self.report),
        }
    }

    /// What a worker does next.
    pub(super) fn next_turn(&mut self, progress: &Progress) -> Next {
        if let Some(cell) = self.ready.pop_first() {
            self.working += 1;
            let others = if self.seen.contains(&cell) {
                Others::Seen
            } else {
                Others::NotSeen
            };
            return Next::Turn(Turn::Cell(cell, others));
        }
        if self.elsewhere.is_empty() || self.looking {
            return Next::Wait;
        }
        let rest = self.pause.saturating_sub(self.looked.elapsed());
        if !rest.is_zero() {
            return Next::WaitFor(rest);
        }
        self.looking = true;
        self.report_waiting(progress);
        Next::Turn(Turn::Look(self.elsewhere.keys().copied().collect()))
    }

    /// Records how an attempt at a cell ended.
    pub(super) fn end(&mut self, cell: Cell, ended: Ended, runner: &Runner<'_>) {
        self.working -= 1;
        self.pause = POLL_INTERVAL[0];
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
            Ended::Interrupted => self.interrupt(),
            Ended::Broken(error) => self.abort(error),
        }
    }

    /// Releases the cells that waited for this one, or fails them with it.
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
            self.abort(error);
        }
        self.report.failed.push((slug, failed.clone()));
        self.ended.insert(cell, Some(failed.clone()));
        runner.progress.ended();
        failed
    }

    /// Cells that are no longer held are tried here: they have ended or can be taken over.
    pub(super) fn looked(&mut self, cells: &[Cell], held: Result<BTreeMap<Cell, Holder>>, runner: &Runner<'_>) {
        self.looking = false;
        self.looked = Instant::now();
        let mut held = match held {
            Ok(held) => held,
            // The folder may be back at the next check; if not, a cell will say so.
            Err(error) => {
                runner.progress.say(&format!("warning: {error:#}"));
                return;
            }
        };
        self.pause = (self.pause * 2).min(POLL_INTERVAL[1]);
        for cell in cells {
            self.elsewhere.remove(cell);
            match held.remove(cell) {
                Some(holder) => {
                    self.elsewhere.insert(*cell, holder);
                }
                None => {
                    self.ready.insert(*cell);
                    self.pause = POLL_INTERVAL[0];
                }
            }
        }
    }

    /// Now and then, when there is nothing else to do.
    fn report_waiting(&mut self, progress: &Progress) {
        // Still held after two checks, so it is not a cell of a few milliseconds.
        let soon = self.pause < POLL_INTERVAL[1] && self.said.is_none();
        if self.working > 0 || soon || self.said.is_some_and(|said| said.elapsed() < MESSAGE_INTERVAL) {
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
