//! The training loop.
//!
//! Everything random is a pure function of (seed, purpose, epoch or step, example), so a training
//! that is stopped anywhere and resumed gives the same bits as one that is not.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use candle_core::Device;
use defenses::Length;
use plan::Training;
use plan::matrix::Checkpoint;
use random::{Purpose, Stream};
use storage::{checkpoint, files};

use super::best::BestFiles;
use super::checkpoints::{Epoch, HISTORY, checkpoint_file, network_file};
use super::learner::Learner;
use super::resume::{Best, Position, RESUME, SELECTING, read_position};
use super::select::select;
use crate::compute::data::{Data, Resident};
use crate::compute::evaluation::Saves;
use crate::compute::training_set::TrainingSet;
use crate::failure::Failure;
use crate::progress::Bar;

/// What a finished training reports.
pub(crate) struct Trained {
    pub(crate) examples: u64,
    /// Files of the cell.
    pub(crate) files: Vec<String>,
}

/// Trains a network and writes its checkpoints to `folder`. It saves its state once in `every`; a kill loses the work since
/// then.
pub(crate) fn train(
    cell: &Training,
    data: &Data,
    set: &TrainingSet,
    device: &Device,
    folder: &Path,
    every: Duration,
    bar: &Bar,
) -> Result<Trained, Failure> {
    let root = Stream::new(cell.seed);
    let recipe = &cell.recipe;
    let mut learner = Learner::new(cell, data.dataset.train.len(), device)?;
    let mut at = Position {
        key: cell.key.clone(),
        ..Position::default()
    };
    let resume = folder.join(RESUME);
    let mut best_files = None;
    if resume.exists() {
        match read_position(&resume, cell, device) {
            Ok((tensors, position, files)) => {
                learner.restore(&resume, &tensors)?;
                (at, best_files) = (position, Some(files));
            }
            // After a restart it ends with the same bits.
            Err(error) => bar.say(&format!("warning: {error:#}; {} starts again", cell.slug)),
        }
    }
    let mut best_files = match best_files {
        Some(files) => files,
        None => BestFiles::open(folder, None)?,
    };

    let resident = Resident::new(&data.dataset.train, device)?;
    let examples = set.epoch();
    let steps_per_epoch = examples.div_ceil(recipe.batch) as u64;
    let total_steps = match recipe.length {
        Length::Epochs(epochs) => epochs * steps_per_epoch,
        Length::Steps(steps) => steps,
    };
    let rate = |epoch, step| {
        recipe
            .schedule
            .rate(recipe.optimizer.rate(), epoch, step, steps_per_epoch, recipe.length)
    };
    bar.start(total_steps, at.step, recipe.batch as u64);
    let mut saved = Instant::now();
    let mut trained = 0;
    // A training stopped after an epoch's last step still has to close that epoch.
    while at.step < total_steps || at.step_in_epoch > 0 {
        let order = set.order(&root.of(Purpose::Order).at(at.epoch), recipe.batch);
        let last_of_epoch = |at: &Position| at.step_in_epoch == steps_per_epoch || at.step == total_steps;
        while !last_of_epoch(&at) {
            let start = at.step_in_epoch as usize * recipe.batch;
            let indices = &order[start..(start + recipe.batch).min(examples)];
            let augmentation = set.augmentation(&root, at.epoch, at.step_in_epoch);
            let augment = &recipe.augment;
            let labels = set.labels(indices);
            let batch = data.training_batch(indices, labels, augment, &augmentation, device, resident.as_ref())?;

            let random = root.of(Purpose::Training).at(at.step);
            let made = learner.step(
                cell,
                &batch,
                set.teacher_predictions(indices),
                random,
                at.epoch,
                rate(at.epoch, at.step),
            )?;
            at.forwards += made.cost.forwards;
            at.backwards += made.cost.backwards;
            let loss = made.loss;
            if !loss.is_finite() {
                return Err(Failure::Diverged {
                    loss,
                    step: at.step_in_epoch + 1,
                    epoch: at.epoch + 1,
                });
            }

            at.step += 1;
            at.step_in_epoch += 1;
            at.loss_sum += f64::from(loss) * indices.len() as f64;
            trained += indices.len() as u64;
            bar.advance(1, || format!("epoch {} loss {loss:.3}", at.epoch + 1));
            if saved.elapsed() >= every || bar.interrupted() {
                learner.save(&resume, &at)?;
                best_files.saved();
                saved = Instant::now();
            }
            if bar.interrupted() {
                return Err(Failure::Interrupted);
            }
        }

        let seen = (at.step_in_epoch as usize * recipe.batch).min(examples);
        at.epoch += 1;
        let last = at.step == total_steps;
        let rate = rate(at.epoch - 1, at.step - 1);
        let selected = if last || at.epoch.is_multiple_of(cell.selection.every) {
            // Without the end of the epoch, which a resumed training reaches again.
            let before = Position {
                epoch: at.epoch - 1,
                ..at.clone()
            };
            let mut save = || learner.save(&resume, &before).map(|()| best_files.saved());
            // A kill may lose half of the interval before the selection starts, and half during it.
            if saved.elapsed() >= every / 2 {
                save()?;
                saved = Instant::now();
            }
            let selecting = folder.join(SELECTING);
            // After resuming from an earlier save, the network of this epoch may differ.
            let network = checkpoint::digest(&learner.evaluated().state()?, &at.epoch)?;
            let saves = Saves {
                file: &selecting,
                key: &format!("{} at {network}", cell.key),
                every: every / 2,
            };
            let selected = select(cell, data, learner.evaluated(), &root, at.epoch, saves, device, bar);
            if matches!(selected, Err(Failure::Interrupted)) {
                save()?;
            }
            // Exists only if choosing took long enough to be saved.
            let _ = selected.is_ok() && std::fs::remove_file(&selecting).is_ok();
            selected?
        } else {
            None
        };
        at.history.push(Epoch {
            epoch: at.epoch,
            loss: at.loss_sum / seen as f64,
            rate,
            selected,
        });
        (at.step_in_epoch, at.loss_sum) = (0, 0.0);
        if let Some(selected) = selected
            && at
                .best
                .as_ref()
                .is_none_or(|best| selected.robust > best.selected.robust)
        {
            let best = network_file(cell, learner.evaluated(), at.epoch, Some(selected))?;
            let blake3 = best_files.keep(&best)?;
            at.best = Some(Best { selected, blake3 });
        }
        if last {
            let file = network_file(cell, learner.evaluated(), at.epoch, selected)?;
            files::write_part(&folder.join(checkpoint_file(Checkpoint::Last)), &file)?;
        }
    }

    let lines: Result<Vec<String>, _> = at.history.iter().map(serde_json::to_string).collect();
    let lines = lines.context("a history is plain data")?.join("\n") + "\n";
    files::write_part(&folder.join(HISTORY), lines.as_bytes())?;
    let mut names = vec![checkpoint_file(Checkpoint::Last), HISTORY.to_string()];
    if at.best.is_some() {
        best_files.publish(&folder.join(checkpoint_file(Checkpoint::Best)))?;
        names.push(checkpoint_file(Checkpoint::Best));
    }
    Ok(Trained {
        examples: trained,
        files: names,
    })
}
