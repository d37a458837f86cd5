//! Finds the checkpoint to export.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::Device;
use storage::checkpoint;

use crate::compute::training::CheckpointInfo;
use crate::exit::{Exit, Stop};
use crate::table_specs;

/// A checkpoint on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) file: PathBuf,
    /// Name of the training's folder.
    pub(super) slug: String,
}

const KEYS: &[&str] = &["dataset", "network", "defense", "seed", "checkpoint"];

/// Filters, each a key and a value.
type Filters<'a> = Vec<(&'a str, &'a str)>;

/// The one checkpoint in a run's folder, in a training's, or a file, that passes the filters.
pub(super) fn find(source: &Path, filters: &[String]) -> Result<Found> {
    let filters = parse(filters)?;
    if source.is_file() {
        if !filters.is_empty() {
            return Err(Stop::usage(
                "a filter chooses among several checkpoints, but a file is one",
            ));
        }
        return Ok(Found {
            file: source.to_path_buf(),
            slug: folder_name(source.parent().unwrap_or(source)),
        });
    }
    let labels = labels(source);
    let (mut known, mut kept) = (Vec::new(), Vec::new());
    for folder in trainings(source)? {
        let Some(file) = checkpoint_of(&folder, &filters)? else {
            continue;
        };
        let slug = folder_name(&folder);
        known.push(slug.clone());
        if passes(&slug, &file, &filters, &labels)? {
            kept.push(Found { file, slug });
        }
    }
    the_only(kept, &known, source)
}

/// The label of each training's defense, by the name of its folder, as far as the run's folder says. A label of other
/// letters than ASCII's is not in the folder's name.
fn labels(source: &Path) -> HashMap<String, String> {
    let Ok(spec) = table_specs::read(source) else {
        return HashMap::new();
    };
    let trainings = spec.trainings.into_iter().zip(&spec.cells);
    trainings
        .map(|(trained, cell)| (cell.to_string(), trained.defense))
        .collect()
}

fn parse(filters: &[String]) -> Result<Filters<'_>> {
    let filters = filters.iter().map(|filter| {
        let pair = filter.split_once('=').filter(|(key, _)| KEYS.contains(key));
        pair.ok_or_else(|| {
            Stop::usage(format!(
                "--filter {filter} is not of the form KEY=VALUE with a key among {}",
                KEYS.join(", ")
            ))
        })
    });
    filters.collect()
}

/// The folders of cells in a run's folder, in order; any other folder is a cell's.
fn trainings(source: &Path) -> Result<Vec<PathBuf>> {
    let cells = source.join("cells");
    if !cells.is_dir() {
        return Ok(vec![source.to_path_buf()]);
    }
    let listing = std::fs::read_dir(&cells).with_context(|| format!("cannot read {}", cells.display()))?;
    let mut folders = listing.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    folders.sort();
    Ok(folders)
}

/// The checkpoint of a finished training that the filters ask for: the best if there is one, unless they say otherwise.
fn checkpoint_of(folder: &Path, filters: &Filters<'_>) -> Result<Option<PathBuf>> {
    let best = folder.join("best.safetensors");
    let last = folder.join("last.safetensors");
    // An unfinished training has no `last`.
    if !last.is_file() {
        return Ok(None);
    }
    let wanted = filters.iter().find(|(key, _)| *key == "checkpoint");
    let file = match wanted.map(|(_, value)| *value) {
        Some("best") => best,
        Some("last") => last,
        Some(other) => return Err(Stop::usage(format!("checkpoint={other}: there are `best` and `last`"))),
        None if best.is_file() => best,
        None => last,
    };
    Ok(file.is_file().then_some(file))
}

fn the_only(mut kept: Vec<Found>, known: &[String], source: &Path) -> Result<Found> {
    if kept.len() > 1 {
        let names: Vec<&str> = kept.iter().map(|found| found.slug.as_str()).collect();
        return Err(Stop::usage(format!(
            "several trainings match: {}; choose with --filter, such as `--filter defense=mart --filter seed=0`",
            names.join(", ")
        )));
    }
    if known.is_empty() {
        return Err(Stop::usage(format!(
            "{} holds no checkpoint of a finished training; name a run's folder, a training's folder in its `cells`, or a \
             checkpoint",
            source.display()
        )));
    }
    kept.pop().ok_or_else(|| {
        Stop {
            exit: Exit::NothingSelected,
            message: format!("no training passes the filters; there are {}", known.join(", ")),
        }
        .into()
    })
}

fn folder_name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a training passes all filters but that of the checkpoint. Its folder is called
/// `KEY-DATASET-NETWORK-DEFENSE-sSEED`, its checkpoint names the network.
fn passes(slug: &str, file: &Path, filters: &[(&str, &str)], labels: &HashMap<String, String>) -> Result<bool> {
    if filters.iter().all(|(key, _)| *key == "checkpoint") {
        return Ok(true);
    }
    let (_, about): (_, CheckpointInfo) =
        checkpoint::load(file, &Device::Cpu).map_err(|error| Stop::usage(format!("{error:#}")))?;
    let Some(parts) = parts(slug, &about.network) else {
        return Ok(false);
    };
    Ok(filters.iter().all(|(key, value)| match *key {
        "dataset" => parts.dataset == *value,
        "network" => about.network == *value,
        // The very label, or else whatever is called like it in names of folders.
        "defense" if labels.values().any(|label| label == value) => {
            labels.get(slug).is_some_and(|label| label == value)
        }
        "defense" => !parts.defense.is_empty() && parts.defense == plan::slug(value),
        "seed" => parts.seed == *value,
        _ => true,
    }))
}

#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    dataset: &'a str,
    defense: &'a str,
    seed: &'a str,
}

fn parts<'a>(slug: &'a str, network: &str) -> Option<Parts<'a>> {
    let (_, rest) = slug.split_once('-')?;
    let (dataset, rest) = rest.split_once(&format!("-{network}-"))?;
    let (defense, seed) = rest.rsplit_once("-s")?;
    Some(Parts { dataset, defense, seed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_folder_is_taken_apart() {
        let found = parts("0123456789ab-fashion-mnist-wrn-10-2-mart-s-trong-s12", "wrn-10-2").unwrap();
        let expected = Parts {
            dataset: "fashion-mnist",
            defense: "mart-s-trong",
            seed: "12",
        };
        assert_eq!(found, expected);
        assert_eq!(parts("something", "wrn-10-2"), None);
    }
}
