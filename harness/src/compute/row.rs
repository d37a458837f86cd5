//! Builds rows: everything about an evaluation that is known before anything is measured.

use attacks::{Attack, Configured, Pixels, Threat};
use plan::{Evaluation, Plan};
use results::{Kind, Row};

/// The network under evaluation, and the data.
pub(crate) struct RowTarget<'a> {
    pub(crate) run: &'a str,
    pub(crate) dataset: &'a str,
    pub(crate) dataset_digest: &'a str,
    pub(crate) verified: bool,
    pub(crate) network: &'a str,
    /// Label of the defense.
    pub(crate) defense: &'a str,
    /// Name of its method.
    pub(crate) defense_name: &'a str,
    pub(crate) defense_version: u32,
    pub(crate) recipe: &'a str,
    pub(crate) seed: u64,
    pub(crate) checkpoint: results::Checkpoint,
    pub(crate) selection: results::Selection,
}

/// The attack on it.
pub(crate) struct RowAttack<'a> {
    pub(crate) attack: &'a Configured<dyn Attack>,
    pub(crate) label: &'a str,
    pub(crate) threat: &'a Threat,
    pub(crate) kind: Kind,
}

/// A row of a cell. Clean images have no threat model.
pub(crate) fn row(cell: &str, target: RowTarget<'_>, attacked: RowAttack<'_>) -> Row {
    let RowAttack {
        attack, label, threat, ..
    } = attacked;
    let about = attack.method.describe();
    let natural = attack.name == "natural";
    Row {
        cell: cell.to_string(),
        run: target.run.to_string(),
        dataset: target.dataset.to_string(),
        dataset_digest: target.dataset_digest.to_string(),
        verified: target.verified,
        network: target.network.to_string(),
        defense: target.defense.to_string(),
        defense_name: target.defense_name.to_string(),
        defense_version: target.defense_version,
        recipe: target.recipe.to_string(),
        seed: target.seed,
        checkpoint: target.checkpoint,
        selection: target.selection,
        attack: label.to_string(),
        attack_name: attack.name.to_string(),
        attack_version: Some(attack.version),
        kind: attacked.kind,
        norm: (!natural).then(|| threat.norm.to_string()),
        epsilon: (!natural).then(|| threat.epsilon.to_string()),
        epsilon_value: (!natural).then(|| threat.epsilon.value()),
        steps: about.steps,
        step_size: about.step_size.map(|size| size.to_string()),
        step_size_value: about.step_size.map(Pixels::value),
        restarts: about.restarts,
        loss: about.loss,
        start: about.start,
        batch_norm: about.batch_norm,
        config_hash: cell.to_string(),
        code_version: env!("CARGO_PKG_VERSION").to_string(),
        ..Row::default()
    }
}

/// The row of an evaluation of a plan, on data with this digest.
pub(crate) fn planned_row(plan: &Plan, evaluation: &Evaluation, dataset_digest: &str, verified: bool) -> Row {
    let training = plan.target(evaluation);
    let target = RowTarget {
        run: &plan.name,
        dataset: &training.dataset.name,
        dataset_digest,
        verified,
        network: &training.network,
        defense: &training.label,
        defense_name: training.defense.name,
        defense_version: training.defense.version,
        recipe: &training.recipe_label,
        seed: training.seed,
        checkpoint: evaluation.checkpoint.into(),
        selection: training.selection.chose(evaluation.checkpoint),
    };
    let attacked = RowAttack {
        attack: &evaluation.attack,
        label: &evaluation.label,
        threat: &evaluation.threat,
        kind: evaluation.kind(),
    };
    let source = evaluation.source.as_ref();
    Row {
        evaluation_config: Some(evaluation.config.clone()),
        training_config: Some(training.config.clone()),
        source: source.map(|source| source.label.clone()),
        source_checkpoint: source.map(|source| source.checkpoint.into()),
        source_seed: source.map(|source| plan.trainings[source.training].seed),
        ..row(&evaluation.key, target, attacked)
    }
}
