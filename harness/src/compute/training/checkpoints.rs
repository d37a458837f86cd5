//! The output of a finished training: checkpoints and the history of its epochs.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use candle_core::{Device, Tensor};
use models::Network;
use plan::Training;
use plan::matrix::Checkpoint;
use random::Stream;
use serde::{Deserialize, Serialize};
use storage::checkpoint;

use crate::failure::Failure;

/// The file of a checkpoint.
pub(crate) fn checkpoint_file(checkpoint: Checkpoint) -> String {
    format!("{checkpoint}.safetensors")
}

/// One line per epoch, as JSON.
pub(crate) const HISTORY: &str = "history.jsonl";
/// The metadata of a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckpointInfo {
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

impl CheckpointInfo {
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

/// A network with its initial parameters.
pub(super) fn build(cell: &Training, device: &Device) -> Result<Network, Failure> {
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
) -> Result<(Network, CheckpointInfo), Failure> {
    let name = checkpoint_file(checkpoint);
    let bytes = storage::cell_folder::read_file(folder, &name)?;
    let parsed = checkpoint::parse(&bytes, device);
    let (tensors, about): (_, CheckpointInfo) = parsed.with_context(|| checkpoint::damaged(&folder.join(&name)))?;
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

/// The metadata of a finished training's checkpoint.
pub(crate) fn read_about(folder: &Path, checkpoint: Checkpoint) -> anyhow::Result<CheckpointInfo> {
    let (_, about) = checkpoint::load(&folder.join(checkpoint_file(checkpoint)), &Device::Cpu)?;
    Ok(about)
}

/// The bytes of a checkpoint's file.
pub(super) fn network_file(
    cell: &Training,
    network: &Network,
    epoch: u64,
    selected: Option<Selected>,
) -> Result<Vec<u8>, Failure> {
    let about = CheckpointInfo {
        key: cell.key.clone(),
        network: cell.network.clone(),
        image: cell.setting.image,
        classes: cell.setting.classes,
        epoch,
        selected,
    };
    Ok(checkpoint::bytes(&prefixed("model.", network.state()?), &about)?)
}

/// Tensors whose names get a prefix.
pub(super) fn prefixed(prefix: &str, tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    tensors
        .into_iter()
        .map(|(name, tensor)| (format!("{prefix}{name}"), tensor))
        .collect()
}
