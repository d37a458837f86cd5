//! Data: is every row's data set the one that was read?

use anyhow::Result;

use crate::audit::run::{AuditedRun, Findings};
use crate::compute::data::data_key;

pub(super) fn data(run: &AuditedRun, findings: &mut Findings) -> Result<()> {
    let plan = run.plan()?;
    for (evaluation, folder, found) in run.evaluations()? {
        let Ok((row, _)) = found else { continue };
        let facts = run.manifest.datasets.get(&data_key(&evaluation.dataset));
        if facts.is_none_or(|facts| (&facts.digest, facts.verified) != (&row.dataset_digest, row.verified)) {
            let name = run.relative(&folder);
            findings.breach(format!("{name}: the row and the manifest disagree about the data"));
        }
    }
    for training in &plan.trainings {
        let facts = run.manifest.datasets.get(&data_key(&training.dataset));
        if facts.is_none_or(|facts| !facts.verified) {
            let note = format!(
                "{} is not the published data set; every table says so",
                training.dataset.name
            );
            if !findings.notes.contains(&note) {
                findings.notes.push(note);
            }
        }
    }
    Ok(())
}
