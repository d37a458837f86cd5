//! Trains one network.
//!
//! Everything random is a pure function of (seed, purpose, epoch or step, example), so a training
//! that is stopped anywhere and resumed gives the same bits as one that is not.

mod best;
mod learner;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use candle_core::{Device, Tensor};
use defenses::Length;
use models::Network;
use plan::Training;
use plan::matrix::Checkpoint;
use random::{Purpose, Stream};
use runs::checkpoint;
use runs::files;
use serde::{Deserialize, Serialize};

use self::best::BestFiles;
use self::learner::{Learner, prefixed};
use crate::data::{Data, Resident};
use crate::failure::Failure;
use crate::lessons::Lessons;
use crate::progress::Bar;
use crate::work::evaluation::{Saves, Scrutiny, Task, evaluate};

/// The file of a checkpoint.
pub(crate) fn checkpoint_file(checkpoint: Checkpoint) -> String {
    format!("{checkpoint}.safetensors")
}

/// One line per epoch, as JSON.
pub(crate) const HISTORY: &str = "history.jsonl";
/// Where an unfinished cell stands.
pub(crate) const RESUME: &str = "resume.safetensors";
/// Where the choice of the best checkpoint stands, if it takes long.
const SELECTING: &str = "selecting.safetensors";

/// What a checkpoint of a network says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    /// The training cell.
    pub(crate) key: String,
    pub(crate) network: String,
    pub(crate) image: [usize; 3],
    pub(crate) classes: usize,
    /// Epochs finished.
    pub(crate) epoch: u64,
    /// Accuracy on the selection split, if it was measured.
    pub(crate) selected: Option<Selected>,
}

impl About {
    /// A description for the fuzzer's valid file.
    pub(crate) fn sample() -> Self {
        Self {
            key: "0a1b".into(),
            network: "tiny-cnn".into(),
            image: [1, 8, 8],
            classes: 10,
            epoch: 3,
            selected: Some(Selected {
                natural: 0.9,
                robust: 0.5,
            }),
        }
    }
}

/// Accuracy on the selection split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Selected {
    pub(crate) natural: f64,
    pub(crate) robust: f64,
}

/// One line of the history.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Epoch {
    pub(crate) epoch: u64,
    /// Mean objective over the epoch's examples.
    pub(crate) loss: f64,
    /// Learning rate of the epoch's last step.
    pub(crate) rate: f64,
    pub(crate) selected: Option<Selected>,
}

/// The history that a training left in its folder, if it has one.
pub(crate) fn history(folder: &Path) -> anyhow::Result<Option<Vec<Epoch>>> {
    let file = folder.join(HISTORY);
    let Ok(text) = std::fs::read_to_string(&file) else {
        return Ok(None);
    };
    let lines = text.lines().map(serde_json::from_str);
    let history = lines.collect::<Result<_, _>>();
    Ok(Some(history.with_context(|| format!("{} is damaged", file.display()))?))
}

/// Where a training stands, beside its tensors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    key: String,
    /// Epochs finished.
    epoch: u64,
    /// Steps made in all.
    step: u64,
    /// Steps made in the unfinished epoch.
    step_in_epoch: u64,
    /// Sum of the objective over the unfinished epoch's examples.
    loss_sum: f64,
    /// The best checkpoint so far.
    best: Option<Best>,
    history: Vec<Epoch>,
    forwards: u64,
    backwards: u64,
}

/// The best checkpoint so far.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Best {
    selected: Selected,
    /// BLAKE3 of its file.
    blake3: String,
}

/// What a finished training reports.
pub(crate) struct Trained {
    pub(crate) examples: u64,
    /// Files of the cell.
    pub(crate) files: Vec<String>,
}

/// Trains a network and leaves its checkpoints in `folder`. Whoever kills it loses what was done since it last saved
/// where it stands, `every` so often.
pub(crate) fn train(
    cell: &Training,
    data: &Data,
    lessons: &Lessons,
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
            // Begun anew it ends at the same bits.
            Err(error) => bar.say(&format!("warning: {error:#}; {} starts anew", cell.slug)),
        }
    }
    let mut best_files = match best_files {
        Some(files) => files,
        None => BestFiles::open(folder, None)?,
    };

    let resident = Resident::new(&data.dataset.train, device)?;
    let examples = lessons.epoch();
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
    // A training stopped after an epoch's last step has that epoch still to close.
    while at.step < total_steps || at.step_in_epoch > 0 {
        let order = lessons.order(&root.of(Purpose::Order).at(at.epoch), recipe.batch);
        let last_of_epoch = |at: &Position| at.step_in_epoch == steps_per_epoch || at.step == total_steps;
        while !last_of_epoch(&at) {
            let start = at.step_in_epoch as usize * recipe.batch;
            let indices = &order[start..(start + recipe.batch).min(examples)];
            let augmentation = lessons.augmentation(&root, at.epoch, at.step_in_epoch);
            let augment = &recipe.augment;
            let labels = lessons.labels(indices);
            let batch = data.training_batch(indices, labels, augment, &augmentation, device, resident.as_ref())?;

            let random = root.of(Purpose::Training).at(at.step);
            let made = learner.step(
                cell,
                &batch,
                lessons.taught(indices),
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
        let selected = match last || at.epoch.is_multiple_of(cell.selection.every) {
            true => {
                // Without the epoch's end, which a resumed training comes to again.
                let before = Position {
                    epoch: at.epoch - 1,
                    ..at.clone()
                };
                let mut save = || learner.save(&resume, &before).map(|()| best_files.saved());
                // Half of the time may be lost before the choice begins, and half in it.
                if saved.elapsed() >= every / 2 {
                    save()?;
                    saved = Instant::now();
                }
                let selecting = folder.join(SELECTING);
                // Resumed from an earlier save, the network of this epoch may be another one.
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
                // Only a choice that took long has left one.
                let _ = selected.is_ok() && std::fs::remove_file(&selecting).is_ok();
                selected?
            }
            false => None,
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

/// Removes what only an unfinished cell needs.
pub(crate) fn clean_up(folder: &Path) {
    // A file left behind wastes space and nothing else.
    let _ = std::fs::remove_file(folder.join(RESUME));
    let _ = std::fs::remove_file(folder.join(SELECTING));
    best::remove_others(folder, None);
}

/// The largest batch, halving the recipe's, of which a step fits into the device's memory now.
pub(crate) fn batch_that_fits(cell: &Training, data: &Data, lessons: &Lessons, device: &Device) -> Option<usize> {
    halve_until_it_fits(cell.recipe.batch, |batch| {
        let indices = lessons.some(batch);
        let random = Stream::new(cell.seed);
        let labels = lessons.labels(indices);
        let images = data.training_batch(indices, labels, &cell.recipe.augment, &random, device, None)?;
        let mut learner = Learner::new(cell, data.dataset.train.len(), device)?;
        // An epoch in which everything the recipe asks for happens.
        let epoch = cell.recipe.awp.map_or(0, |awp| awp.warmup);
        learner.step(cell, &images, lessons.taught(indices), random, epoch, 0.0)?;
        Ok(device.synchronize()?)
    })
}

/// The first half of `batch`, quarter of it and so on that `step` does without running out of memory. None where not
/// even one example fits, or where something else is wrong.
fn halve_until_it_fits(batch: usize, mut step: impl FnMut(usize) -> Result<(), Failure>) -> Option<usize> {
    let mut batch = batch / 2;
    while batch > 0 {
        match step(batch) {
            Ok(()) => return Some(batch),
            Err(failure) if kernels::device::is_out_of_memory(&failure) => batch /= 2,
            Err(_) => return None,
        }
    }
    None
}

/// A network with its initial parameters.
fn build(cell: &Training, device: &Device) -> Result<Network, Failure> {
    let random = Stream::new(cell.seed);
    cell.architecture
        .build(device, &random)
        .map_err(|error| Failure::Other(error.into()))
}

/// A network with the parameters of a finished training's checkpoint.
pub(crate) fn load_network(
    cell: &Training,
    checkpoint: Checkpoint,
    folder: &Path,
    device: &Device,
) -> Result<(Network, About), Failure> {
    let name = checkpoint_file(checkpoint);
    runs::cell_folder::check_file(folder, &name)?;
    let (tensors, about): (_, About) = checkpoint::load(&folder.join(&name), device)?;
    let network = build(cell, device)?;
    network
        .load_state(&checkpoint::part(&tensors, "model."))
        .with_context(|| {
            format!(
                "{} does not fit the network {}",
                folder.join(&name).display(),
                cell.network
            )
        })?;
    Ok((network, about))
}

/// What a finished training's checkpoint says of itself.
pub(crate) fn read_about(folder: &Path, checkpoint: Checkpoint) -> anyhow::Result<About> {
    let (_, about) = checkpoint::load(&folder.join(checkpoint_file(checkpoint)), &Device::Cpu)?;
    Ok(about)
}

/// What is wrong with the checkpoints of a finished training: the best must be the first of the epochs with the
/// highest robust accuracy on the selection split, the last must be the last.
pub(crate) fn breaches_of_selection(cell: &Training, folder: &Path) -> Vec<String> {
    let read = || -> anyhow::Result<Vec<String>> {
        let mut breaches = Vec::new();
        let mut breach = |right: bool, text: &str| {
            if !right {
                breaches.push(text.to_string());
            }
        };
        let text = std::fs::read_to_string(folder.join(HISTORY)).context("cannot read the history")?;
        let history: Vec<Epoch> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        breach(
            history.iter().map(|it| it.epoch).eq(1..=history.len() as u64),
            "the history's epochs are not 1, 2, …",
        );
        let last = read_about(folder, Checkpoint::Last)?;
        breach(last.key == cell.key, "the last checkpoint is of another training");
        breach(
            history.last().is_some_and(|it| it.epoch == last.epoch),
            "the last checkpoint is not of the last epoch",
        );
        let mut best: Option<(u64, Selected)> = None;
        for it in &history {
            if let Some(selected) = it.selected
                && best.is_none_or(|(_, best)| selected.robust > best.robust)
            {
                best = Some((it.epoch, selected));
            }
        }
        breach(
            best.is_some() == cell.selection.split.is_some(),
            "the history does not say what the best checkpoint was chosen by",
        );
        if let Some((epoch, selected)) = best {
            let about = read_about(folder, Checkpoint::Best)?;
            breach(about.key == cell.key, "the best checkpoint is of another training");
            breach(
                about.epoch == epoch && about.selected == Some(selected),
                "the best checkpoint is not of the epoch with the highest robust accuracy on the selection split",
            );
        }
        Ok(breaches)
    };
    read().unwrap_or_else(|error| vec![format!("{error:#}")])
}

/// Accuracy on the selection split, clean and attacked.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different thing, and there is one caller"
)]
fn select(
    cell: &Training,
    data: &Data,
    network: &Network,
    root: &Stream,
    epoch: u64,
    saves: Saves<'_>,
    device: &Device,
    bar: &Bar,
) -> Result<Option<Selected>, Failure> {
    let Some(split) = cell.selection.split else {
        return Ok(None);
    };
    let (split, indices) = data.selection(split);
    let random = root.of(Purpose::Selection).at(epoch);
    let threat = &cell.setting.threat;
    let attack = cell.selection.attack.method.as_ref();
    let evaluated = evaluate(&Task {
        source: None,
        target: network,
        attack,
        threat,
        split,
        indices,
        random: &random,
        device,
        bar,
        scrutiny: Scrutiny::Count,
        saves: Some(saves),
        keep_images: 0,
    })?;
    Ok(Some(Selected {
        natural: evaluated.clean_accuracy(),
        robust: evaluated.accuracy(),
    }))
}

/// The bytes of a checkpoint's file.
fn network_file(
    cell: &Training,
    network: &Network,
    epoch: u64,
    selected: Option<Selected>,
) -> Result<Vec<u8>, Failure> {
    let about = About {
        key: cell.key.clone(),
        network: cell.network.clone(),
        image: cell.setting.image,
        classes: cell.setting.classes,
        epoch,
        selected,
    };
    Ok(checkpoint::bytes(&prefixed("model.", network.state()?), &about)?)
}

/// The tensors and the position in a file of [`Learner::save`]'s, if they are what it wrote for this training, and the
/// best checkpoint that it names is there.
fn read_position(
    file: &Path,
    cell: &Training,
    device: &Device,
) -> anyhow::Result<(BTreeMap<String, Tensor>, Position, BestFiles)> {
    let (tensors, position): (_, Position) = checkpoint::load_sealed(file, device)?;
    anyhow::ensure!(
        position.key == cell.key,
        "{} belongs to another training",
        file.display()
    );
    let named = position.best.as_ref().map(|best| best.blake3.as_str());
    let folder = file.parent().context("a save is in a folder")?;
    let best_files = BestFiles::open(folder, named).with_context(|| {
        let file = file.display();
        format!("{file} cannot be used without the best checkpoint so far")
    })?;
    Ok((tensors, position, best_files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_that_fits_is_found_by_halving() {
        let full =
            || Failure::from(candle_core::Error::msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY)").context("training"));
        let with_room_for =
            |most: usize| halve_until_it_fits(128, |batch| if batch <= most { Ok(()) } else { Err(full()) });
        assert_eq!(with_room_for(128), Some(64));
        assert_eq!(with_room_for(40), Some(32));
        assert_eq!(with_room_for(1), Some(1));
        assert_eq!(with_room_for(0), None);
        // Another error says nothing of memory, and is not tried again.
        let mut tries = 0;
        let other = halve_until_it_fits(128, |_| {
            tries += 1;
            Err(Failure::Integrity("something else".into()))
        });
        assert_eq!((other, tries), (None, 1));
        let said = Failure::Memory {
            batch: 128,
            fits: Some(32),
        }
        .to_string();
        assert!(said.contains("a batch of 32 would fit"), "{said}");
    }
}
