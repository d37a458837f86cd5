//! Runs a plan: every cell that is not finished, parents first, several at once if asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::Device;
use models::{Classifier, Network};
use random::{Purpose, Stream};
use results::{Row, Timing, TimingKind};

use crate::data::Data;
use crate::evaluation::{Saves, Scrutiny, Task, judge, query_budget, untouched};
use crate::failure::Failure;
use crate::folder::{self, FailedCell, RunFolder, State};
use crate::host;
use crate::matrix::{Checkpoint, DatasetEntry, SelectionSplit};
use crate::plan::{Evaluation, Plan, Training};
use crate::progress::Progress;
use crate::tables::{kind, stored};
use crate::training::{RESUME, batch_that_fits, clean_up, load_network, train};

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
    /// A cell that is stopped loses at most so much work.
    pub(crate) checkpoint_every: Duration,
    /// This invocation, as the manifest names it.
    pub(crate) invocation: String,
}

/// One cell of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cell {
    Training(usize),
    Evaluation(usize),
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
    /// Cells without a result, with the reason.
    pub(crate) failed: Vec<(String, FailedCell)>,
    pub(crate) interrupted: bool,
}

impl Plan {
    /// The cells that must be there before this one.
    pub(crate) fn parents(&self, cell: Cell) -> Vec<Cell> {
        match cell {
            Cell::Training(_) => Vec::new(),
            Cell::Evaluation(i) => {
                let evaluation = &self.evaluations[i];
                let source = evaluation.source.as_ref().map(|it| it.training);
                [Some(evaluation.target), source]
                    .into_iter()
                    .flatten()
                    .map(Cell::Training)
                    .collect()
            }
        }
    }

    /// Every cell, trainings first.
    pub(crate) fn cells(&self) -> impl Iterator<Item = Cell> {
        let trainings = (0..self.trainings.len()).map(Cell::Training);
        trainings.chain((0..self.evaluations.len()).map(Cell::Evaluation))
    }

    /// A cell's key and readable name.
    pub(crate) fn identity(&self, cell: Cell) -> (&str, &str) {
        match cell {
            Cell::Training(i) => (&self.trainings[i].key, &self.trainings[i].slug),
            Cell::Evaluation(i) => (&self.evaluations[i].key, &self.evaluations[i].slug),
        }
    }

    /// Where a cell keeps its files.
    pub(crate) fn folder(&self, root: &Path, cell: Cell) -> PathBuf {
        let (key, slug) = self.identity(cell);
        folder::cell_folder(root, key, slug)
    }

    /// How a cell stands on disk.
    pub(crate) fn state(&self, root: &Path, cell: Cell) -> State {
        folder::state(&self.folder(root, cell), self.identity(cell).0)
    }

    /// The selected evaluations and the trainings they need, parents first. A training whose
    /// evaluations are all finished is not needed.
    pub(crate) fn needed(&self, selected: &[usize]) -> Vec<Cell> {
        let evaluations = selected.iter().map(|&i| Cell::Evaluation(i));
        let mut cells: Vec<Cell> = evaluations
            .clone()
            .flat_map(|it| self.parents(it))
            .chain(evaluations)
            .collect();
        cells.sort();
        cells.dedup();
        cells
    }
}

/// Runs `cells` (parents first) and what the plan says of them.
pub(crate) fn run(
    plan: &Plan,
    cells: &[Cell],
    data: &AllData,
    run_folder: &RunFolder,
    options: &Options,
    progress: &Progress,
) -> Result<Report> {
    let runner = Runner {
        plan,
        data,
        root: run_folder.root(),
        options,
        progress,
    };
    let board = Mutex::new(Board::new(plan, cells, &runner)?);
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        for worker in 0..options.jobs.max(1) {
            let (runner, board, changed) = (&runner, &board, &changed);
            scope.spawn(move || {
                // On a GPU every worker has a stream of its own; a card that refuses has fewer workers.
                let device = match worker {
                    0 => Ok(options.device.clone()),
                    _ => kernels::device::another(&options.device),
                };
                let Ok(device) = device else { return };
                while let Some(cell) = next(board, changed) {
                    let ended = runner.run_cell(cell, &device).map_err(Failure::or_lost);
                    board.lock().expect("no panic while held").end(cell, ended, runner);
                    changed.notify_all();
                    progress.ended();
                }
            });
        }
    });
    let board = board.into_inner().expect("no panic while held");
    if let Some(error) = board.broken {
        return Err(error);
    }
    Ok(board.report)
}

/// Waits for a cell whose parents have ended. `None`: nothing is left to do.
fn next(board: &Mutex<Board>, changed: &Condvar) -> Option<Cell> {
    let mut board = board.lock().expect("no panic while held");
    loop {
        if board.stopped || board.waiting.is_empty() {
            return None;
        }
        let ready = board
            .waiting
            .iter()
            .position(|(_, parents)| parents.iter().all(|it| board.ended.contains_key(it)));
        match ready {
            Some(ready) => return Some(board.waiting.remove(ready).0),
            None => board = changed.wait(board).expect("no panic while held"),
        }
    }
}

/// What is left and what has ended.
struct Board {
    /// Cells and the parents they wait for.
    waiting: Vec<(Cell, Vec<Cell>)>,
    /// Ended cells, with the reason if they failed.
    ended: BTreeMap<Cell, Option<FailedCell>>,
    report: Report,
    stopped: bool,
    /// An error that no cell can be blamed for.
    broken: Option<anyhow::Error>,
}

impl Board {
    fn new(plan: &Plan, cells: &[Cell], runner: &Runner<'_>) -> Result<Self> {
        let mut board = Self {
            waiting: Vec::new(),
            ended: BTreeMap::new(),
            report: Report::default(),
            stopped: false,
            broken: None,
        };
        for &cell in cells {
            let folder = plan.folder(runner.root, cell);
            if runner.options.force {
                folder::forget(&folder)?;
            }
            match plan.state(runner.root, cell) {
                State::Done => {
                    // A kill between a cell's end and its tidying leaves something.
                    clean_up(&folder);
                    tidy_temporary(&folder)?;
                    board.report.kept += 1;
                    board.ended.insert(cell, None);
                    runner.progress.ended();
                }
                State::Failed(failed) if failed.repeatable => {
                    board
                        .report
                        .failed
                        .push((plan.identity(cell).1.to_string(), failed.clone()));
                    board.ended.insert(cell, Some(failed));
                    runner.progress.ended();
                }
                State::Damaged(reason) => {
                    runner
                        .progress
                        .say(&format!("warning: {reason}; the cell is made anew"));
                    folder::forget(&folder)?;
                    board.waiting.push((cell, plan.parents(cell)));
                }
                State::New | State::Begun | State::Failed(_) => board.waiting.push((cell, plan.parents(cell))),
            }
        }
        board.fail_children_of_failed(runner);
        Ok(board)
    }

    fn end(&mut self, cell: Cell, ended: Result<(), Failure>, runner: &Runner<'_>) {
        let slug = runner.plan.identity(cell).1.to_string();
        let failure = match ended {
            Ok(()) => {
                self.report.computed += 1;
                self.report.ended += 1;
                self.ended.insert(cell, None);
                self.fail_children_of_failed(runner);
                return;
            }
            // Not the cell's fault, and the next would meet it as well. What is finished is safe.
            Err(Failure::Other(error)) if crate::files::is_refused(&error) => {
                self.broken.get_or_insert(error.context(slug));
                self.stopped = true;
                return;
            }
            Err(failure) => failure,
        };
        if matches!(failure, Failure::Lost(_)) {
            self.broken.get_or_insert(failure.into());
            self.stopped = true;
            return;
        }
        let Some(failed) = failure.record() else {
            self.report.interrupted = true;
            self.stopped = true;
            return;
        };
        self.record(cell, slug, failed, runner);
        self.fail_children_of_failed(runner);
        self.stopped |= runner.options.fail_fast;
    }

    /// Evaluations of a network that could not be trained have failed as well.
    fn fail_children_of_failed(&mut self, runner: &Runner<'_>) {
        let blocked = |(cell, parents): &(Cell, Vec<Cell>)| {
            let cause = parents
                .iter()
                .find_map(|parent| self.ended.get(parent)?.clone().map(|it| (parent, it)));
            cause.map(|(parent, it)| (*cell, *parent, it))
        };
        let blocked: Vec<_> = self.waiting.iter().filter_map(blocked).collect();
        for (cell, parent, cause) in blocked {
            self.waiting.retain(|(waiting, _)| *waiting != cell);
            let parent = runner.plan.identity(parent).1;
            let failed = FailedCell {
                error: format!("{parent} failed: {}", cause.error),
                integrity: false,
                ..cause
            };
            self.record(cell, runner.plan.identity(cell).1.to_string(), failed, runner);
            runner.progress.ended();
        }
    }

    fn record(&mut self, cell: Cell, slug: String, failed: FailedCell, runner: &Runner<'_>) {
        self.report.ended += 1;
        runner.progress.say(&format!("failed: {slug}: {}", failed.error));
        if let Err(error) = runner.store_failure(cell, &failed) {
            // A full disk, say: the run cannot go on, and finished cells are safe.
            self.broken.get_or_insert(error);
            self.stopped = true;
        }
        self.report.failed.push((slug, failed.clone()));
        self.ended.insert(cell, Some(failed));
    }
}

struct Runner<'a> {
    plan: &'a Plan,
    data: &'a AllData,
    root: &'a Path,
    options: &'a Options,
    progress: &'a Progress,
}

impl Runner<'_> {
    fn run_cell(&self, cell: Cell, device: &Device) -> Result<(), Failure> {
        if self.progress.interrupted() {
            return Err(Failure::Interrupted);
        }
        let folder = self.plan.folder(self.root, cell);
        crate::files::make_folder(&folder)?;
        tidy_temporary(&folder)?;
        match cell {
            Cell::Training(i) => self.run_training(&self.plan.trainings[i], &folder, device),
            Cell::Evaluation(i) => self.run_evaluation(&self.plan.evaluations[i], &folder, device),
        }
    }

    fn run_training(&self, cell: &Training, folder: &Path, device: &Device) -> Result<(), Failure> {
        let (started, clock) = (host::now(), Instant::now());
        let bar = self.progress.cell("train", &cell.slug);
        let data = &self.data[&data_key(&cell.dataset)];
        let trained =
            train(cell, data, device, folder, self.options.checkpoint_every, &bar).map_err(
                |failure| match &failure {
                    Failure::Other(error) if kernels::device::is_out_of_memory(error) => Failure::Memory {
                        batch: cell.recipe.batch,
                        fits: batch_that_fits(cell, data, device),
                    },
                    _ => failure,
                },
            )?;
        let timing = self.timing(&cell.key, TimingKind::Train, started, clock, trained.examples);
        results::write_cell(folder, &[], &[], &[timing]).context("cannot store a training's timings")?;
        let mut names: Vec<&str> = trained.files.iter().map(String::as_str).collect();
        names.extend(RESULT_FILES);
        folder::finish(folder, &cell.key, &self.options.invocation, &names)?;
        clean_up(folder);
        Ok(())
    }

    fn run_evaluation(&self, cell: &Evaluation, folder: &Path, device: &Device) -> Result<(), Failure> {
        let (started, clock) = (host::now(), Instant::now());
        let bar = self.progress.cell("attack", &cell.slug);
        let training = self.plan.target(cell);
        let load = |index: usize, checkpoint| {
            let training = &self.plan.trainings[index];
            load_network(
                training,
                checkpoint,
                &self.plan.folder(self.root, Cell::Training(index)),
                device,
            )
        };
        let (target, about) = load(cell.target, cell.checkpoint)?;
        let source = match &cell.source {
            Some(source) => Some(load(source.training, source.checkpoint)?.0),
            None => None,
        };
        let data = &self.data[&data_key(&training.dataset)];
        let random = Stream::new(training.seed).of(Purpose::Evaluation);
        let saves = folder.join(RESUME);
        bar.start(data.test.len() as u64, 0);
        let task = Task {
            source: source.as_ref().map(|it| it as &dyn Classifier),
            target: &target,
            attack: cell.attack.method.as_ref(),
            threat: &cell.threat,
            split: &data.dataset.test,
            indices: &data.test,
            random: &random,
            device,
            bar: &bar,
            scrutiny: match kind(cell) {
                results::Kind::Natural => Scrutiny::Network,
                _ => Scrutiny::Again,
            },
            saves: Some(Saves {
                file: &saves,
                key: &cell.key,
                every: self.options.checkpoint_every,
            }),
            keep_images: false,
        };
        let networks: Vec<&Network> = [&target].into_iter().chain(&source).collect();
        let judged = untouched(&networks, || judge(&task))?;
        let row = Row {
            epoch: Some(about.epoch),
            ..self.row(cell, data)
        };
        let row = judged.complete(row, query_budget(task.attack, target.classes()));
        let outcomes = judged.stored(&cell.key);
        let timing = self.timing(&cell.key, TimingKind::Evaluate, started, clock, outcomes.len() as u64);
        results::write_cell(folder, &[row], &outcomes, &[timing]).context("cannot store an evaluation")?;
        folder::finish(folder, &cell.key, &self.options.invocation, RESULT_FILES)?;
        clean_up(folder);
        Ok(())
    }

    /// A failed evaluation has a row as well, without a number.
    fn store_failure(&self, cell: Cell, failed: &FailedCell) -> Result<()> {
        let folder = self.plan.folder(self.root, cell);
        crate::files::make_folder(&folder)?;
        let mut names: &[&str] = &[];
        if let Cell::Evaluation(i) = cell {
            names = RESULT_FILES;
            let evaluation = &self.plan.evaluations[i];
            let data = &self.data[&data_key(&self.plan.target(evaluation).dataset)];
            let row = self.row(evaluation, data).with_failure(failed.error.clone());
            results::write_cell(&folder, &[row], &[], &[]).context("cannot store a failure")?;
        }
        folder::fail(
            &folder,
            self.plan.identity(cell).0,
            &self.options.invocation,
            failed.clone(),
            names,
        )
    }

    /// What a row says of an evaluation before anything is measured.
    fn row(&self, cell: &Evaluation, data: &Data) -> Row {
        let training = self.plan.target(cell);
        let about = cell.attack.method.describe();
        let natural = cell.attack.name == "natural";
        Row {
            cell: cell.key.clone(),
            run: self.plan.name.clone(),
            dataset: training.dataset.name.clone(),
            dataset_digest: data.dataset.digest.clone(),
            verified: data.dataset.verified,
            network: training.network.clone(),
            defense: training.label.clone(),
            defense_name: training.defense.name.to_string(),
            defense_version: training.defense.version,
            recipe: training.recipe_label.clone(),
            seed: training.seed,
            checkpoint: stored(cell.checkpoint),
            selection: match (cell.checkpoint, training.selection.split) {
                (Checkpoint::Last, _) | (_, None) => results::Selection::None,
                (_, Some(SelectionSplit::Validation)) => results::Selection::Validation,
                (_, Some(SelectionSplit::Test)) => results::Selection::Test,
            },
            attack: cell.label.clone(),
            attack_name: cell.attack.name.to_string(),
            attack_version: Some(cell.attack.version),
            kind: kind(cell),
            source: cell.source.as_ref().map(|it| it.label.clone()),
            source_checkpoint: cell.source.as_ref().map(|it| stored(it.checkpoint)),
            source_seed: cell.source.as_ref().map(|it| self.plan.trainings[it.training].seed),
            norm: (!natural).then(|| cell.threat.norm.to_string()),
            epsilon: (!natural).then(|| cell.threat.epsilon.to_string()),
            epsilon_value: (!natural).then(|| cell.threat.epsilon.value()),
            steps: about.steps,
            step_size: about.step_size.map(|it| it.to_string()),
            step_size_value: about.step_size.map(attacks::Pixels::value),
            restarts: about.restarts,
            loss: about.loss,
            start: about.start,
            batch_norm: about.batch_norm,
            config_hash: cell.key.clone(),
            code_version: env!("CARGO_PKG_VERSION").to_string(),
            ..Row::default()
        }
    }

    fn timing(&self, key: &str, kind: TimingKind, started: u64, clock: Instant, images: u64) -> Timing {
        let seconds = clock.elapsed().as_secs_f64();
        Timing {
            cell: key.to_string(),
            kind,
            seconds,
            images_per_second: (seconds > 0.0).then(|| images as f64 / seconds),
            threads: rayon::current_num_threads() as u64,
            host: host::name(),
            cpu: host::processor(),
            device: self.options.device_name.clone(),
            started,
            peak_memory: host::peak_memory(),
        }
    }
}

/// Removes the temporary files of killed processes.
pub(crate) fn tidy_temporary(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    results::atomic::clean(folder).with_context(|| format!("cannot clean up {}", folder.display()))
}

const RESULT_FILES: &[&str] = &[results::ROWS_FILE, results::OUTCOMES_FILE, results::TIMINGS_FILE];
