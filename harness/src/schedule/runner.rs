//! Leases one cell, computes it, stores it and renames its folder.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use models::{Classifier, Network};
use plan::matrix::Checkpoint;
use plan::{Cell, Evaluation, Plan, Training};
use random::{Purpose, Stream};
use results::{Row, TimingKind};
use storage::cell_folder::{self, FailedCell, State};
use storage::examples::{self, About, Examples};
use storage::files;
use storage::leases::{Attempt, Holder, Lease, Process, Published};

use super::attempt::{Ended, Others};
use super::fsync_thread::FsyncThread;
use super::options::Options;
use crate::compute::data::{AllData, Data, data_key, plain_batch};
use crate::compute::evaluation::{Evaluated, Saves, Scrutiny, Task, evaluate, query_budget, untouched};
use crate::compute::row::planned_row;
use crate::compute::stopwatch::Stopwatch;
use crate::compute::training::{
    CheckpointInfo as Trained, RESUME, batch_that_fits, checkpoint_file, clean_up, load_network, train,
};
use crate::compute::training_set::{self, StoredPredictions, TrainingSet};
use crate::failure::Failure;
use crate::panics;
use crate::progress::{Bar, Progress};

/// How a leased cell was found.
enum Prepared {
    /// It is to be computed.
    Begin,
    /// Everything is there, but not in its place.
    Whole,
    /// It has ended since we last looked.
    Ended(Option<FailedCell>),
}

pub(super) struct Runner<'a> {
    pub(super) plan: &'a Plan,
    pub(super) data: &'a AllData,
    pub(super) root: &'a Path,
    pub(super) process: &'a Process,
    pub(super) options: &'a Options,
    pub(super) progress: &'a Progress,
    pub(super) fsync_thread: &'a FsyncThread,
}

impl Runner<'_> {
    /// Leases a cell, computes it and renames its folder to the final name.
    pub(super) fn attempt(&self, cell: Cell, others: Others, device: &Device) -> Ended {
        if self.progress.interrupted() {
            return Ended::Interrupted;
        }
        let lease = match self.lease(cell) {
            Ok(Attempt::Held(lease)) => lease,
            Ok(Attempt::Busy(holder)) => return Ended::Busy(holder),
            Err(error) => return Ended::Broken(error),
        };
        let computed = match self.prepare(cell, others, &lease) {
            // A bug ends the cell, not the run.
            Ok(Prepared::Begin) => {
                let computed = panics::caught(|| self.compute(cell, lease.work(), device));
                computed.unwrap_or_else(|panic| Err(panic.into()))
            }
            Ok(Prepared::Whole) => {
                // A kill between the end of a cell and its cleanup leaves files behind.
                clean_up(lease.work());
                Ok(())
            }
            Ok(Prepared::Ended(failed)) => {
                lease.abandon();
                return Ended::Elsewhere(failed);
            }
            Err(error) => return Ended::Broken(error),
        };
        let failed = match computed.map_err(Failure::or_lost) {
            Ok(()) => None,
            // The lease stays, so that the next to take it finds what was begun.
            Err(failure @ Failure::Lost(_)) => return Ended::Broken(failure.into()),
            Err(_) if !lease.holds() => return Ended::Busy(lease.holder()),
            // Not the cell's fault, and the next would meet it as well. What is finished is safe.
            Err(Failure::Other(error)) if files::is_refused(&error) => {
                return Ended::Broken(error.context(self.plan.identity(cell).1.to_string()));
            }
            Err(failure) => match failure.record() {
                // The lease stays, so that the next to take it finds what was begun.
                None => return Ended::Interrupted,
                Some(failed) => Some(failed),
            },
        };
        if let Some(failed) = &failed
            && let Err(error) = self.write_failure(cell, failed, lease.work())
        {
            return Ended::Broken(error);
        }
        let holder = lease.holder();
        match self.publish(cell, lease) {
            Err(error) => Ended::Broken(error),
            Ok(Published::Lost) => Ended::Busy(holder),
            Ok(Published::Theirs) => Ended::Elsewhere(None),
            Ok(Published::Ours) => failed.map_or(Ended::Computed, Ended::Failed),
        }
    }

    fn lease(&self, cell: Cell) -> Result<Attempt> {
        self.process
            .lease(self.plan.identity(cell).0, &self.plan.cell_name(cell))
    }

    /// Makes the folder to work in, out of what an earlier attempt has left.
    fn prepare(&self, cell: Cell, others: Others, lease: &Lease) -> Result<Prepared> {
        let folder = self.plan.folder(self.root, cell);
        let work = lease.work();
        if self.options.force {
            cell_folder::remove(work)?;
        }
        match cell_folder::cell_state(self.plan, self.root, cell) {
            State::Done => return Ok(Prepared::Ended(None)),
            State::Failed(failed) if failed.repeatable || others == Others::Seen => {
                return Ok(Prepared::Ended(Some(failed)));
            }
            State::Damaged(_) => cell_folder::remove(&folder)?,
            State::Failed(_) | State::Begun if !work.exists() => cell_folder::reopen(&folder, work)?,
            State::New | State::Begun | State::Failed(_) => {}
        }
        match cell_folder::state(work, self.plan.identity(cell).0) {
            // The process that computed it was killed before it could publish it.
            State::Done => return Ok(Prepared::Whole),
            State::Failed(_) | State::Damaged(_) => cell_folder::remove(work)?,
            State::New | State::Begun => {}
        }
        files::make_folder(work)?;
        files::remove_temporary(work)?;
        self.write_config(cell, work)?;
        Ok(Prepared::Begin)
    }

    /// What the cell is, for a reader of its folder: the text of which the key is the hash.
    fn write_config(&self, cell: Cell, folder: &Path) -> Result<()> {
        files::write_part(
            &folder.join(cell_folder::CONFIG),
            self.plan.config_text(cell).as_bytes(),
        )
    }

    fn publish(&self, cell: Cell, lease: Lease) -> Result<Published> {
        let folder = self.plan.folder(self.root, cell);
        let published = lease.publish(&folder, &|| {
            cell_folder::cell_state(self.plan, self.root, cell) == State::Done
        })?;
        if published == Published::Ours {
            self.fsync_thread.note(folder)?;
        }
        Ok(published)
    }

    /// Records a cell as failed that was never tried.
    pub(super) fn fail_alone(&self, cell: Cell, failed: &FailedCell) -> Result<()> {
        let Attempt::Held(lease) = self.lease(cell)? else {
            // The process that holds it will get the same result, or a better one.
            return Ok(());
        };
        if cell_folder::cell_state(self.plan, self.root, cell) == State::Done {
            lease.abandon();
            return Ok(());
        }
        files::make_folder(lease.work())?;
        self.write_config(cell, lease.work())?;
        self.write_failure(cell, failed, lease.work())?;
        self.publish(cell, lease).map(drop)
    }

    /// Those of these cells that a live process holds.
    pub(super) fn held_elsewhere(&self, cells: &[Cell]) -> Result<BTreeMap<Cell, Holder>> {
        let keys: Vec<&str> = cells.iter().map(|cell| self.plan.identity(*cell).0).collect();
        let mut held = self.process.holders(&keys)?;
        let of = |cell: &Cell| Some((*cell, held.remove(self.plan.identity(*cell).0)?));
        Ok(cells.iter().filter_map(of).collect())
    }

    fn compute(&self, cell: Cell, folder: &Path, device: &Device) -> Result<(), Failure> {
        match cell {
            Cell::Training(i) => self.run_training(&self.plan.trainings[i], folder, device),
            Cell::Evaluation(i) => self.run_evaluation(&self.plan.evaluations[i], folder, device),
        }
    }

    fn run_training(&self, cell: &Training, folder: &Path, device: &Device) -> Result<(), Failure> {
        let stopwatch = Stopwatch::start();
        let bar = self.progress.cell("train", &cell.slug);
        let data = &self.data[&data_key(&cell.dataset)];
        let set = self.training_set(cell, data, folder, device, &bar)?;
        let every = self.options.checkpoint_every;
        let trained = train(cell, data, &set, device, folder, every, &bar).map_err(|failure| match &failure {
            Failure::Other(error) if kernels::device::is_out_of_memory(error) => Failure::Memory {
                batch: cell.recipe.batch,
                fits: batch_that_fits(cell, data, &set, device),
            },
            _ => failure,
        })?;
        let timing = stopwatch.timing(
            &cell.key,
            TimingKind::Train,
            &self.options.device_name,
            trained.examples,
        );
        results::write_cell(folder, &[], &[], &[timing]).context("cannot store a training's timings")?;
        let mut names: Vec<&str> = trained.files.iter().map(String::as_str).collect();
        names.extend(RESULT_FILES);
        names.extend(cell.supervision.teacher.as_ref().map(|_| training_set::TEACHER));
        cell_folder::finish(folder, &cell.key, &self.options.invocation, &names)?;
        clean_up(folder);
        Ok(())
    }

    /// What a training learns from. A teacher predicts once; its predictions are kept in the folder.
    fn training_set(
        &self,
        cell: &Training,
        data: &Data,
        folder: &Path,
        device: &Device,
        bar: &Bar,
    ) -> Result<TrainingSet, Failure> {
        let Some(teacher) = &cell.supervision.teacher else {
            return Ok(TrainingSet::without_teacher(data));
        };
        let before = StoredPredictions::read(folder, &cell.key).unwrap_or_else(|error| {
            // Asked again it says the same.
            bar.say(&format!("warning: {error:#}; the teacher is asked again"));
            None
        });
        let predictions = match before {
            Some(predictions) => predictions,
            None => {
                let (network, about) = self.load(teacher.training, teacher.checkpoint, device)?;
                let predictions = training_set::predict(cell, &network, about.epoch, data, device, bar)?;
                predictions.write(folder)?;
                predictions
            }
        };
        TrainingSet::with_teacher(cell, data, &predictions)
    }

    /// The network of a finished training.
    fn load(&self, index: usize, checkpoint: Checkpoint, device: &Device) -> Result<(Network, Trained), Failure> {
        let folder = self.plan.folder(self.root, Cell::Training(index));
        load_network(&self.plan.trainings[index], checkpoint, &folder, device)
    }

    fn run_evaluation(&self, cell: &Evaluation, folder: &Path, device: &Device) -> Result<(), Failure> {
        let stopwatch = Stopwatch::start();
        let bar = self.progress.cell("attack", &cell.slug);
        let training = self.plan.target(cell);
        let (target, about) = self.load(cell.target, cell.checkpoint, device)?;
        let source = match &cell.source {
            Some(source) => Some(self.load(source.training, source.checkpoint, device)?.0),
            None => None,
        };
        let data = &self.data[&data_key(&cell.dataset)];
        let random = Stream::new(training.seed).of(Purpose::Evaluation);
        let saves = folder.join(RESUME);
        bar.start(data.test.len() as u64, 0, 1);
        let task = Task {
            source: source.as_ref().map(|network| network as &dyn Classifier),
            target: &target,
            attack: cell.attack.method.as_ref(),
            threat: &cell.threat,
            split: &data.dataset.test,
            indices: &data.test,
            random: &random,
            device,
            bar: &bar,
            scrutiny: match cell.kind() {
                results::Kind::Natural => Scrutiny::Network,
                _ => Scrutiny::Again,
            },
            saves: Some(Saves {
                file: &saves,
                key: &cell.key,
                every: self.options.checkpoint_every,
            }),
            keep_images: match cell.kind() {
                results::Kind::WhiteBox => examples::kept(data.dataset.test.image()),
                _ => 0,
            },
        };
        let networks: Vec<&Network> = [&target].into_iter().chain(&source).collect();
        let evaluated = untouched(&networks, || evaluate(&task))?;
        let row = Row {
            epoch: Some(about.epoch),
            ..planned_row(self.plan, cell, &data.dataset.digest, data.dataset.verified)
        };
        let row = evaluated.complete(row, query_budget(task.attack, target.classes()));
        let outcomes = evaluated.stored(&cell.key);
        let timing = stopwatch.timing(
            &cell.key,
            TimingKind::Evaluate,
            &self.options.device_name,
            outcomes.len() as u64,
        );
        results::write_cell(folder, &[row], &outcomes, &[timing]).context("cannot store an evaluation")?;
        let mut names = RESULT_FILES.to_vec();
        if !evaluated.images.is_empty() {
            self.examples(cell, data, &evaluated)?
                .write_part(&folder.join(examples::FILE))?;
            names.push(examples::FILE);
        }
        cell_folder::finish(folder, &cell.key, &self.options.invocation, &names)?;
        clean_up(folder);
        Ok(())
    }

    /// The first images of an evaluation, before and after, as `rampart verify-examples` reads them.
    fn examples(&self, cell: &Evaluation, data: &Data, evaluated: &Evaluated) -> Result<Examples> {
        let training = self.plan.target(cell);
        let adversarial = Tensor::cat(&evaluated.images, 0)?;
        let count = adversarial.dim(0)?;
        let clean = plain_batch(&data.dataset.test, &data.test[..count], &Device::Cpu)?;
        let name = checkpoint_file(cell.checkpoint);
        let trained = cell_folder::status(&self.plan.folder(self.root, Cell::Training(cell.target)))?;
        let mark = trained.and_then(|mut status| status.files.remove(&name));
        let correct = evaluated.outcomes[..count]
            .iter()
            .filter(|outcome| outcome.predicted == outcome.label);
        Ok(Examples {
            adversarial,
            clean: Some(clean.images),
            labels: clean.labels.to_vec1()?,
            ids: Some(clean.ids),
            about: Some(About {
                dataset: training.dataset.name.clone(),
                dataset_digest: data.dataset.digest.clone(),
                model: training.network.clone(),
                checkpoint: mark
                    .with_context(|| format!("{name} is not recorded as finished"))?
                    .blake3,
                threat: cell.threat,
                attack: cell.attack.name.to_string(),
                config: cell.attack.config.clone(),
                seed: training.seed,
                correct: correct.count() as u64,
            }),
        })
    }

    /// A failed evaluation has a row as well, without a number.
    fn write_failure(&self, cell: Cell, failed: &FailedCell, folder: &Path) -> Result<()> {
        let mut names: &[&str] = &[cell_folder::CONFIG];
        if let Cell::Evaluation(i) = cell {
            names = RESULT_FILES;
            let evaluation = &self.plan.evaluations[i];
            let data = &self.data[&data_key(&evaluation.dataset)];
            let row = planned_row(self.plan, evaluation, &data.dataset.digest, data.dataset.verified)
                .with_failure(failed.error.clone());
            results::write_cell(folder, &[row], &[], &[]).context("cannot store a failure")?;
        }
        cell_folder::fail(
            folder,
            self.plan.identity(cell).0,
            &self.options.invocation,
            failed.clone(),
            names,
        )
    }
}

/// What a finished cell of either kind consists of.
const RESULT_FILES: &[&str] = &[
    cell_folder::CONFIG,
    results::ROWS_FILE,
    results::OUTCOMES_FILE,
    results::TIMINGS_FILE,
];
