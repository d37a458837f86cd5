//! Which matrix a command is about, and which of its cells.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use plan::matrix::Matrix;
use plan::{Digests, Methods, Plan};

use crate::compute::data::Data;
use crate::compute::data::{AllData, data_key};
use crate::exit::{Exit, Stop};

/// A matrix and what the command line changes in it.
#[derive(Debug, Clone)]
pub(crate) struct MatrixRequest {
    pub(crate) file: PathBuf,
    /// Fields to set, as in `recipe.epochs=2`.
    pub(crate) set: Vec<String>,
    /// Training and test examples to keep, at most.
    pub(crate) limit: Option<usize>,
    /// Instead of the matrix's seeds.
    pub(crate) seed: Option<u64>,
}

impl MatrixRequest {
    /// Reads the matrix, with the changes.
    pub(crate) fn read(&self) -> Result<Matrix> {
        let mut matrix = Matrix::read(&self.file, &self.set)?;
        if let Some(limit) = self.limit {
            if limit == 0 {
                return Err(Stop::usage(
                    "--limit must be at least 1: with 0 there is nothing to train or test on",
                ));
            }
            for block in &mut matrix.blocks {
                let smaller = |old: Option<usize>| Some(old.map_or(limit, |old| old.min(limit)));
                block.dataset.limit.train = smaller(block.dataset.limit.train);
                block.dataset.limit.test = smaller(block.dataset.limit.test);
                // The subset must still hold the validation examples.
                block.dataset.validation = block.dataset.validation.min((limit / 4).max(usize::from(limit > 1)));
                // And some examples with labels, some without.
                block.dataset.labeled = block.dataset.labeled.map(|labeled| labeled.min((limit / 2).max(1)));
            }
        }
        Ok(matrix)
    }

    /// Resolves the matrix and loads the data it names.
    pub(crate) fn resolve(
        &self,
        matrix: &Matrix,
        methods: &Methods,
        data_dir: Option<&Path>,
    ) -> Result<(Plan, AllData)> {
        let root = datasets::root(data_dir).map_err(|error| Stop::usage(error.to_string()))?;
        // Mistakes first: reading data may take a while.
        let checked = plan::resolve(matrix, methods, self.seed, None)?;
        let mut all: AllData = BTreeMap::new();
        let mut digests = Digests::new();
        for entry in checked.datasets() {
            let data = Data::load(entry, &root)?;
            digests.insert(entry.clone(), data.dataset.digest.clone());
            all.insert(data_key(entry), Arc::new(data));
        }
        let plan = plan::resolve(matrix, methods, self.seed, Some(&digests))?;
        Ok((plan, all))
    }
}

/// The evaluations that pass the filters, each `KEY=VALUE`.
pub(crate) fn select(plan: &Plan, filters: &[String]) -> Result<Vec<usize>> {
    const KEYS: &[&str] = &["dataset", "network", "defense", "attack", "checkpoint", "seed"];
    let mut wanted: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for filter in filters {
        let (key, value) = filter
            .split_once('=')
            .ok_or_else(|| Stop::usage(format!("--filter {filter} is not of the form KEY=VALUE")))?;
        let Some(key) = KEYS.iter().find(|known| **known == key) else {
            let hint = suggest::hint(key, KEYS.iter().copied());
            return Err(Stop::usage(format!(
                "--filter {filter}: there is no key `{key}`; {hint}"
            )));
        };
        wanted.entry(key).or_default().push(value.to_lowercase());
    }
    let selected = |index: &usize| {
        let evaluation = &plan.evaluations[*index];
        let training = plan.target(evaluation);
        wanted.iter().all(|(key, values)| {
            let actual = match *key {
                "dataset" => vec![training.dataset.name.clone()],
                "network" => vec![training.network.clone()],
                "defense" => vec![training.label.to_lowercase(), training.defense.name.to_string()],
                "attack" => vec![evaluation.label.to_lowercase(), evaluation.attack.name.to_string()],
                "checkpoint" => vec![evaluation.checkpoint.to_string()],
                _ => vec![training.seed.to_string()],
            };
            actual.iter().any(|name| values.contains(name))
        })
    };
    let kept: Vec<usize> = (0..plan.evaluations.len()).filter(selected).collect();
    if kept.is_empty() {
        return Err(Stop {
            exit: Exit::NothingSelected,
            message: "no cell of this matrix passes the filters; `rampart plan` lists them".into(),
        }
        .into());
    }
    Ok(kept)
}
