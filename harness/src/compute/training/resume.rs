//! Where an unfinished training is saved, and how it is resumed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use candle_core::{Device, Tensor};
use plan::Training;
use serde::{Deserialize, Serialize};
use storage::checkpoint;

use super::best::{self, BestFiles};
use super::checkpoints::{Epoch, Selected};

/// The state of an unfinished training.
pub(crate) const RESUME: &str = "resume.safetensors";
/// The state of an unfinished evaluation that chooses the best checkpoint.
pub(super) const SELECTING: &str = "selecting.safetensors";

/// The state of a training, beside its tensors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    pub(super) key: String,
    /// Epochs finished.
    pub(super) epoch: u64,
    /// Steps made in all.
    pub(super) step: u64,
    /// Steps made in the unfinished epoch.
    pub(super) step_in_epoch: u64,
    /// Sum of the objective over the unfinished epoch's examples.
    pub(super) loss_sum: f64,
    /// The best checkpoint so far.
    pub(super) best: Option<Best>,
    pub(super) history: Vec<Epoch>,
    pub(super) forwards: u64,
    pub(super) backwards: u64,
}

/// The best checkpoint so far.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Best {
    pub(super) selected: Selected,
    /// BLAKE3 of its file.
    pub(super) blake3: String,
}

/// The tensors and the position in a file of [`Learner::save`]'s, if they are what it wrote for this training, and the
/// best checkpoint that it names is there.
pub(super) fn read_position(
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

/// Removes what only an unfinished cell needs.
pub(crate) fn clean_up(folder: &Path) {
    // A file that remains wastes space but does no harm.
    let _ = std::fs::remove_file(folder.join(RESUME));
    let _ = std::fs::remove_file(folder.join(SELECTING));
    best::remove_others(folder, None);
}
