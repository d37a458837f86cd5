//! What a manifest records of this program, and of the matrix, plan and data that it works on.

use std::collections::BTreeMap;

use plan::Plan;
use plan::matrix::Matrix;
use storage::manifest::{self, DatasetFacts, MatrixFacts, PlanFacts, Program};

use crate::compute::data::{AllData, data_key};

/// This program.
pub(crate) fn program() -> Program {
    let known = |text: &str| (!text.is_empty()).then(|| text.to_string());
    Program {
        version: env!("CARGO_PKG_VERSION").to_string(),
        commit: known(env!("RAMPART_COMMIT")),
        dirty: known(env!("RAMPART_DIRTY")).map(|dirty| dirty == "true"),
        cargo_lock: manifest::digest(include_bytes!("../../../Cargo.lock")),
        compiler: known(env!("RAMPART_RUSTC")),
        target: known(env!("RAMPART_TARGET")),
        profile: known(env!("RAMPART_PROFILE")),
        opt_level: known(env!("RAMPART_OPT_LEVEL")),
        flags: known(env!("RAMPART_RUSTFLAGS")),
        features: cfg!(feature = "cuda").then(|| "cuda".to_string()).into_iter().collect(),
    }
}

/// A matrix with the command line's changes.
pub(crate) fn matrix(matrix: &Matrix, set: &[String], limit: Option<usize>, seed: Option<u64>) -> MatrixFacts {
    MatrixFacts::new(&matrix.source.text, set, limit, seed)
}

/// A plan.
pub(crate) fn plan(plan: &Plan) -> PlanFacts {
    let seeds: Vec<u64> = plan.trainings.iter().map(|training| training.seed).collect();
    PlanFacts::new(plan.cells().map(|cell| plan.identity(cell).0), &seeds)
}

/// The data sets of a plan.
pub(crate) fn datasets(plan: &Plan, data: &AllData) -> BTreeMap<String, DatasetFacts> {
    let trained = plan.trainings.iter().map(|training| &training.dataset);
    let evaluated = plan.evaluations.iter().map(|evaluation| &evaluation.dataset);
    let facts = trained.chain(evaluated).map(|entry| {
        let key = data_key(entry);
        let dataset = &data[&key].dataset;
        let facts = DatasetFacts {
            digest: dataset.digest.clone(),
            verified: dataset.verified,
        };
        (key, facts)
    });
    facts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_knows_what_it_was_built_from() {
        let program = program();
        assert_eq!(program.cargo_lock.len(), 64);
        assert!(program.compiler.unwrap().contains("rustc"));
        assert!(program.target.is_some() && program.opt_level.is_some());
        assert!(
            program
                .commit
                .is_none_or(|commit| commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit()))
        );
    }
}
