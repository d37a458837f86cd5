//! Accuracy on the images that choose the best checkpoint.

use candle_core::Device;
use models::Network;
use plan::Training;
use random::{Purpose, Stream};

use super::checkpoints::Selected;
use crate::compute::data::Data;
use crate::compute::evaluation::{Saves, Scrutiny, Task, evaluate};
use crate::failure::Failure;
use crate::progress::Bar;

/// Accuracy on the selection split, clean and attacked.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different thing, and there is one caller"
)]
pub(super) fn select(
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
