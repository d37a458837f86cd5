//! The resources that jobs ask of `sbatch`.

use std::collections::HashSet;

use anyhow::Result;
use plan::Plan;

use super::job::Kind;
use super::request::SubmitRequest;
use crate::exit::Stop;

/// What the user asks of `sbatch`.
pub(super) struct Resources {
    /// Options and for which kind of job or which network they are; `None`: for all.
    options: Vec<(Option<String>, String)>,
}

impl Resources {
    pub(super) fn read(request: &SubmitRequest, plan: &Plan) -> Result<Self> {
        if request.array_limit == Some(0) || request.cpus_per_task == Some(0) {
            return Err(Stop::usage("--array-limit and --cpus-per-task must be at least 1"));
        }
        let mut options = Vec::new();
        let mut add = |of: &[Kind], option: &str, value: Option<String>| {
            for kind in of {
                options.extend(
                    value
                        .as_ref()
                        .map(|value| (Some(kind.as_str().to_string()), format!("{option}={value}"))),
                );
            }
        };
        const WORK: &[Kind] = &[Kind::Train, Kind::Attack];
        const ALL: &[Kind] = &[Kind::Train, Kind::Attack, Kind::Tables];
        add(ALL, "--partition", request.partition.clone());
        add(ALL, "--time", request.time.clone());
        add(
            WORK,
            "--cpus-per-task",
            request.cpus_per_task.map(|count| count.to_string()),
        );
        add(WORK, "--gres", request.gres.clone());
        let networks: HashSet<&str> = plan
            .trainings
            .iter()
            .map(|training| training.network.as_str())
            .collect();
        for option in &request.sbatch {
            if option.contains(['\n', '\r']) {
                return Err(Stop::usage("--sbatch takes one line"));
            }
            if option.starts_with('-') {
                options.push((None, option.clone()));
                continue;
            }
            let known = |what: &str| networks.contains(what) || ALL.iter().any(|kind| kind.as_str() == what);
            match option.split_once(':') {
                Some((what, option)) if known(what) && option.starts_with('-') => {
                    options.push((Some(what.to_string()), option.to_string()));
                }
                _ => {
                    let mut networks: Vec<&str> = networks.into_iter().collect();
                    networks.sort_unstable();
                    return Err(Stop::usage(format!(
                        "--sbatch {option} is neither an option of sbatch, as in `--mem=8G`, nor one for some jobs, as \
                         in `train:--mem=8G`; jobs are of `train`, `attack`, `tables`, or of a network: {}",
                        networks.join(", ")
                    )));
                }
            }
        }
        Ok(Self { options })
    }

    /// Those of one job; later ones win, as with sbatch.
    pub(super) fn of<'a>(&'a self, kind: Kind, network: Option<&'a str>) -> impl Iterator<Item = &'a str> {
        let fits = move |what: &str| what == kind.as_str() || Some(what) == network;
        let fitting = self
            .options
            .iter()
            .filter(move |(what, _)| what.as_deref().is_none_or(fits));
        fitting.map(|(_, option)| option.as_str())
    }
}
