//! One evaluation cell and its key.

use super::attack::ResolvedAttack;
use super::scope::{Checked, Scope};
use crate::cell::{Evaluation, TransferSource};
use crate::key::{CheckpointKey, EvaluationKey, key_of_text};
use crate::label::slug;
use crate::matrix::Checkpoint;
use crate::plan::{Conflict, Plan};

impl Scope<'_> {
    /// The evaluation of a checkpoint under an attack.
    pub(super) fn evaluation(
        &self,
        plan: &Plan,
        target: usize,
        checkpoint: Checkpoint,
        resolved: &ResolvedAttack,
        source: Option<TransferSource>,
    ) -> Evaluation {
        let training = &plan.trainings[target];
        let through = source
            .as_ref()
            .map_or_else(String::new, |source| format!("-via-{}", slug(&source.label)));
        let slug = format!("{}-{checkpoint}-{}{through}", training.slug, slug(&resolved.label));
        let config = EvaluationKey {
            target: CheckpointKey {
                training: &training.key,
                checkpoint,
            },
            source: source.as_ref().map(|source| CheckpointKey {
                training: &plan.trainings[source.training].key,
                checkpoint: source.checkpoint,
            }),
            attack: (&resolved.attack).into(),
            threat: resolved.threat,
            test: resolved.dataset.limit.test,
        }
        .text();
        let ResolvedAttack {
            attack,
            label,
            threat,
            dataset,
            ..
        } = resolved.clone();
        Evaluation {
            key: key_of_text(&config),
            config,
            slug,
            target,
            dataset,
            checkpoint,
            attack,
            label,
            threat,
            source,
        }
    }

    /// Adds an evaluation to the plan, unless another one has its place in the tables.
    pub(super) fn add(&self, plan: &mut Plan, evaluation: Evaluation) -> Checked<()> {
        let (label, slug) = (evaluation.label.clone(), plan.target(&evaluation).slug.clone());
        let message = match plan.add_evaluation(evaluation) {
            Ok(()) => return Ok(()),
            Err(Conflict::Place) => format!(
                "another comparison evaluates the same training ({slug}) under a `{label}` of its own, on other images \
                 or with other fields; give the attack another `label`, or limit its images by its own `limit`"
            ),
            Err(Conflict::Label(other)) => format!(
                "`{label}` is the same attack on the same training ({slug}) as `{other}`; leave one of them out, or give \
                 both one `label`"
            ),
        };
        Err(self.error("attacks", message))
    }
}
