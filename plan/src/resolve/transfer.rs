//! The networks on which transferred images are made.

use attacks::Setting;

use super::scope::{Checked, Scope};
use crate::cell::TransferSource;
use crate::matrix::{Checkpoint, Sources, Transfer};
use crate::plan::Plan;

impl Scope<'_> {
    /// The networks on which images for a target are made, each with the target's checkpoint that is attacked.
    pub(super) fn sources(
        &self,
        plan: &mut Plan,
        transfer: &Transfer,
        targets: &[usize],
        target: usize,
        setting: &Setting,
    ) -> Checked<Vec<(Checkpoint, TransferSource)>> {
        let named = |plan: &Plan, training: usize, checkpoint| {
            let source = &plan.trainings[training];
            TransferSource {
                checkpoint,
                label: format!("{} / {}", source.label, source.network),
                training,
            }
        };
        let checkpoints = &self.block.checkpoints;
        match (&transfer.source, transfer.sources) {
            (Some(from), None) => {
                let setting = match &from.network {
                    Some(network) => self.setting(network, "transfer.source.network")?,
                    None => setting.clone(),
                };
                let field = "transfer.source.defense";
                let supervision = self.supervision(plan, field, &from.defense, &setting)?;
                let training = self.training(field, (&from.defense, ""), &setting, from.seed, &supervision)?;
                let training = plan.add_training(training);
                if targets.contains(&training) {
                    let message = "the source is one of the targets itself; give it another `seed`";
                    return Err(self.error("transfer.source", message));
                }
                self.check_has_best("transfer.source.checkpoint", from.checkpoint)?;
                let source = named(plan, training, from.checkpoint);
                Ok(checkpoints
                    .iter()
                    .map(|&checkpoint| (checkpoint, source.clone()))
                    .collect())
            }
            (None, Some(Sources::Defenses)) => {
                let seed = plan.trainings[target].seed;
                let same_seed = targets.iter().filter(|&&other| plan.trainings[other].seed == seed);
                let pairs =
                    same_seed.flat_map(|&source| checkpoints.iter().map(move |&checkpoint| (checkpoint, source)));
                Ok(pairs
                    .map(|(checkpoint, source)| (checkpoint, named(plan, source, checkpoint)))
                    .collect())
            }
            (Some(_), Some(_)) => Err(self.error("transfer", "write `source` or `sources`, not both")),
            (None, None) => {
                let message =
                    "missing field `source`, one network, or `sources: defenses`, every defense of the matrix";
                Err(self.error("transfer", message))
            }
        }
    }
}
