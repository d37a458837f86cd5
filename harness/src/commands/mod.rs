//! One file per subcommand.

pub(crate) mod attack;
pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod export;
pub(crate) mod fetch;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod method;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod tables;
pub(crate) mod validate;
pub(crate) mod verify;
pub(crate) mod verify_examples;
pub(crate) mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ::plan::matrix::Matrix;
use ::plan::{Digests, Methods, Plan, nearest};
use anyhow::Result;

use crate::cli::{MatrixArgs, SelectArgs};
use crate::data::Data;
use crate::exit::{Exit, Stop};
use crate::run::{AllData, data_key};

/// Reads a matrix and lays the command line over it.
pub(crate) fn read_matrix(args: &MatrixArgs) -> Result<Matrix> {
    let mut matrix = Matrix::read(&args.matrix, &args.set)?;
    if let Some(limit) = args.limit {
        if limit == 0 {
            return Err(Stop::usage("--limit 0 leaves nothing to train or test on"));
        }
        for block in &mut matrix.blocks {
            let smaller = |old: Option<usize>| Some(old.map_or(limit, |old| old.min(limit)));
            block.dataset.limit.train = smaller(block.dataset.limit.train);
            block.dataset.limit.test = smaller(block.dataset.limit.test);
            // The subset must still hold the validation examples.
            block.dataset.validation = block.dataset.validation.min(limit / 4);
            // And some examples with labels, some without.
            block.dataset.labeled = block.dataset.labeled.map(|labeled| labeled.min((limit / 2).max(1)));
        }
    }
    Ok(matrix)
}

/// Resolves a matrix and loads the data it names.
pub(crate) fn resolve(
    matrix: &Matrix,
    args: &MatrixArgs,
    methods: &Methods,
    data_dir: Option<&Path>,
) -> Result<(Plan, AllData)> {
    let root = datasets::root(data_dir).map_err(|error| Stop::usage(error.to_string()))?;
    // Mistakes first: reading data may take a while.
    let checked = ::plan::resolve(matrix, methods, args.seed, None)?;
    let mut all: AllData = BTreeMap::new();
    let mut digests = Digests::new();
    for entry in checked.datasets() {
        let data = Data::load(entry, &root)?;
        digests.insert(entry.clone(), data.dataset.digest.clone());
        all.insert(data_key(entry), Arc::new(data));
    }
    let plan = ::plan::resolve(matrix, methods, args.seed, Some(&digests))?;
    Ok((plan, all))
}

/// The evaluations that the filters leave.
pub(crate) fn select(plan: &Plan, args: &SelectArgs) -> Result<Vec<usize>> {
    const KEYS: &[&str] = &["dataset", "network", "defense", "attack", "checkpoint", "seed"];
    let mut filters: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for filter in &args.filter {
        let (key, value) = filter
            .split_once('=')
            .ok_or_else(|| Stop::usage(format!("--filter {filter} is not of the form KEY=VALUE")))?;
        let Some(key) = KEYS.iter().find(|known| **known == key) else {
            let hint = nearest(key, KEYS.iter().copied());
            let hint = hint.map_or_else(
                || format!("known: {}", KEYS.join(", ")),
                |it| format!("did you mean `{it}`?"),
            );
            return Err(Stop::usage(format!(
                "--filter {filter}: there is no key `{key}`; {hint}"
            )));
        };
        filters.entry(key).or_default().push(value.to_lowercase());
    }
    let selected = |index: &usize| {
        let evaluation = &plan.evaluations[*index];
        let training = plan.target(evaluation);
        filters.iter().all(|(key, values)| {
            let actual = match *key {
                "dataset" => vec![training.dataset.name.clone()],
                "network" => vec![training.network.clone()],
                "defense" => vec![training.label.to_lowercase(), training.defense.name.to_string()],
                "attack" => vec![evaluation.label.to_lowercase(), evaluation.attack.name.to_string()],
                "checkpoint" => vec![evaluation.checkpoint.to_string()],
                _ => vec![training.seed.to_string()],
            };
            actual.iter().any(|it| values.contains(it))
        })
    };
    let kept: Vec<usize> = (0..plan.evaluations.len()).filter(selected).collect();
    match kept.is_empty() {
        false => Ok(kept),
        true => Err(Stop {
            exit: Exit::NothingSelected,
            message: "no cell of this matrix passes the filters; `harness plan` lists them".into(),
        }
        .into()),
    }
}
