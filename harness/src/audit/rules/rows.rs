//! Rows: do they belong to their cells, count what the cells recorded, and keep the threat model?

use std::collections::BTreeMap;

use anyhow::Result;
use results::{Outcome, Row};

use crate::audit::run::{AuditedRun, Findings};
use crate::compute::data::data_key;
use crate::compute::evaluation::SLACK;
use crate::compute::row::planned_row;

/// Compares each row with the plan and with its outcomes, and the images of evaluations with each other.
pub(super) fn rows(run: &AuditedRun, findings: &mut Findings) -> Result<()> {
    let plan = run.plan()?;
    let mut labels: BTreeMap<(&str, u64), u32> = BTreeMap::new();
    let mut examples: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (evaluation, folder, found) in run.evaluations()? {
        let name = run.relative(&folder);
        let (row, outcomes) = match found {
            Ok(found) => found,
            Err(error) => {
                findings.breach(format!("{name}: {error:#}"));
                continue;
            }
        };
        let expected = planned_row(plan, evaluation, &row.dataset_digest, row.verified);
        for field in other_fields(&row, &expected) {
            findings.breach(format!("{name}: `{field}` is not what the matrix asks for"));
        }
        for breach in miscounts(&row, &outcomes) {
            findings.breach(format!("{name}: {breach}"));
        }
        let dataset = &plan.target(evaluation).dataset.name;
        for outcome in &outcomes {
            let label = *labels.entry((dataset, outcome.example)).or_insert(outcome.label);
            if label != outcome.label {
                findings.breach(format!("{name}: image {} has another label elsewhere", outcome.example));
            }
        }
        let these: Vec<u64> = outcomes.iter().map(|outcome| outcome.example).collect();
        let known = examples
            .entry(data_key(&evaluation.dataset))
            .or_insert_with(|| these.clone());
        if *known != these {
            findings.breach(format!("{name}: other images than elsewhere"));
        }
    }
    Ok(())
}

/// The fields in which a row differs from the one that the plan asks for.
fn other_fields(row: &Row, expected: &Row) -> Vec<&'static str> {
    let fields = [
        (
            "cell",
            row.cell == expected.cell && row.config_hash == expected.config_hash,
        ),
        // Rows of earlier builds have no configurations.
        (
            "evaluation_config",
            row.evaluation_config.is_none() || row.evaluation_config == expected.evaluation_config,
        ),
        (
            "training_config",
            row.training_config.is_none() || row.training_config == expected.training_config,
        ),
        ("run", row.run == expected.run),
        ("dataset", row.dataset == expected.dataset),
        ("network", row.network == expected.network),
        (
            "defense",
            row.defense == expected.defense && row.defense_name == expected.defense_name,
        ),
        ("defense_version", row.defense_version == expected.defense_version),
        ("recipe", row.recipe == expected.recipe),
        ("seed", row.seed == expected.seed),
        ("checkpoint", row.checkpoint == expected.checkpoint),
        (
            "attack",
            row.attack == expected.attack && row.attack_name == expected.attack_name,
        ),
        ("attack_version", row.attack_version == expected.attack_version),
        ("kind", row.kind == expected.kind),
        ("source", row.source == expected.source),
        ("source_checkpoint", row.source_checkpoint == expected.source_checkpoint),
        ("status", row.status == results::Status::Done && row.error.is_none()),
    ];
    let others = fields.into_iter().filter(|(_, same)| !same);
    others.map(|(field, _)| field).collect()
}

/// What is wrong with a row's counts, given its outcomes.
fn miscounts(row: &Row, outcomes: &[Outcome]) -> Vec<&'static str> {
    let correct = outcomes.iter().filter(|outcome| outcome.correct).count() as u64;
    let largest = outcomes.iter().map(|outcome| outcome.delta).fold(0.0, f32::max);
    let counted = row.clone().with_count(outcomes.len() as u64, correct);
    let right = |outcome: &Outcome| outcome.correct == (outcome.predicted == outcome.label);
    let checks = [
        (
            "an outcome of another cell",
            outcomes.iter().all(|outcome| outcome.cell == row.cell),
        ),
        (
            "an image twice",
            outcomes.windows(2).all(|pair| pair[0].example < pair[1].example),
        ),
        (
            "`correct` is not whether the predicted class is the true one",
            outcomes.iter().all(right),
        ),
        ("the row does not count its outcomes", *row == counted),
        (
            "`max_delta` is not the largest of the outcomes'",
            row.max_delta.is_some_and(|delta| delta as f32 == largest),
        ),
    ];
    let broken = checks.into_iter().filter(|(_, kept)| !kept);
    broken.map(|(breach, _)| breach).collect()
}

pub(super) fn threat(run: &AuditedRun, findings: &mut Findings) -> Result<()> {
    for (evaluation, folder, found) in run.evaluations()? {
        let Ok((row, outcomes)) = found else { continue };
        let natural = evaluation.attack.name == "natural";
        let radius = if natural {
            0.0
        } else {
            evaluation.threat.epsilon.value()
        };
        let name = run.relative(&folder);
        if !natural && row.epsilon_value != Some(radius) {
            findings.breach(format!("{name}: the row's radius is not {}", evaluation.threat.epsilon));
        }
        let outside = outcomes
            .iter()
            .filter(|outcome| !(0.0..=radius + SLACK).contains(&f64::from(outcome.delta)))
            .count();
        if outside > 0 {
            findings.breach(format!("{name}: {outside} images are further away than {radius}"));
        }
    }
    Ok(())
}
