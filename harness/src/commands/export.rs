use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use clap::Args;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::checkpoint;
use crate::exit::{Exit, Stop};
use crate::files;
use crate::training::About;

/// What to export.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExportArgs {
    /// The folder of a run, such as `runs/digits`, a training's folder in it, or a checkpoint in that.
    pub(crate) source: PathBuf,
    /// The file to write: safetensors under the authors' parameter names.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Which training of a run, and which checkpoint: `dataset`, `network`, `defense`, `seed` or
    /// `checkpoint`, as in `defense=mart`. Unless `checkpoint` is given: best where there is one.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
}

/// Writes a trained network as PyTorch users expect it.
pub(crate) fn main(args: &ExportArgs, out: &mut dyn Write) -> Result<Exit> {
    let found = find(&args.source, &args.filter)?;
    let (tensors, about): (_, About) =
        checkpoint::load(&found.file, &Device::Cpu).map_err(|error| Stop::usage(format!("{error:#}")))?;
    let tensors = checkpoint::part(&tensors, "model.");
    let mut buffers = Vec::new();
    for (name, tensor) in &tensors {
        let (dtype, bytes) = bytes(name, tensor)?;
        buffers.push((name, dtype, tensor.dims().to_vec(), bytes));
    }
    let views = buffers.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("as many bytes as the shape needs");
        (name.as_str(), view)
    });
    // One entry, so that equal content is equal bytes.
    let metadata = json!({
        "network": about.network, "image": about.image, "classes": about.classes, "epoch": about.epoch,
        "training": about.key, "cell": found.slug,
    });
    let bytes = safetensors::serialize(views, Some([("rampart".to_string(), metadata.to_string())].into()))?;
    files::write(&std::path::absolute(&args.out)?, &bytes)?;
    let [channels, height, width] = about.image;
    writeln!(
        out,
        "{}: {} for images {channels}×{height}×{width} and {} classes, epoch {}, out of {}",
        args.out.display(),
        about.network,
        about.classes,
        about.epoch,
        found.file.display(),
    )?;
    Ok(Exit::Success)
}

/// A tensor's bytes as PyTorch keeps them: counts of updates are integers.
fn bytes(name: &str, tensor: &Tensor) -> Result<(Dtype, Vec<u8>)> {
    let flat = tensor.flatten_all()?;
    Ok(match name.ends_with("num_batches_tracked") {
        true => {
            let counts: Vec<i64> = flat.to_dtype(DType::I64)?.to_vec1()?;
            (Dtype::I64, counts.iter().flat_map(|it| it.to_le_bytes()).collect())
        }
        false => {
            let values: Vec<f32> = flat.to_vec1()?;
            (Dtype::F32, values.iter().flat_map(|it| it.to_le_bytes()).collect())
        }
    })
}

/// A checkpoint on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    file: PathBuf,
    /// Name of the training's folder.
    slug: String,
}

const KEYS: &[&str] = &["dataset", "network", "defense", "seed", "checkpoint"];

/// The one checkpoint that is meant.
fn find(source: &Path, filters: &[String]) -> Result<Found> {
    let filters = filters.iter().map(|filter| {
        let pair = filter.split_once('=').filter(|(key, _)| KEYS.contains(key));
        pair.ok_or_else(|| {
            Stop::usage(format!(
                "--filter {filter} is not of the form KEY=VALUE with a key among {}",
                KEYS.join(", ")
            ))
        })
    });
    let filters: Vec<(&str, &str)> = filters.collect::<Result<_>>()?;
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
    let cells = source.join("cells");
    let folders = match cells.is_dir() {
        true => {
            let listing = std::fs::read_dir(&cells).with_context(|| format!("cannot read {}", cells.display()))?;
            let mut folders = listing.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            folders.sort();
            folders
        }
        false => vec![source.to_path_buf()],
    };
    let mut known = Vec::new();
    let mut kept = Vec::new();
    for folder in folders {
        let best = folder.join("best.safetensors");
        let last = folder.join("last.safetensors");
        // A training that is not finished has no `last`.
        if !last.is_file() {
            continue;
        }
        let wanted = filters
            .iter()
            .find(|(key, _)| *key == "checkpoint")
            .map(|(_, value)| *value);
        let file = match wanted {
            Some("best") => best,
            Some("last") => last,
            Some(other) => return Err(Stop::usage(format!("checkpoint={other}: there are `best` and `last`"))),
            None if best.is_file() => best,
            None => last,
        };
        if !file.is_file() {
            continue;
        }
        let slug = folder_name(&folder);
        known.push(slug.clone());
        if passes(&slug, &file, &filters)? {
            kept.push(Found { file, slug });
        }
    }
    match (&kept[..], &known[..]) {
        ([found], _) => Ok(found.clone()),
        ([], []) => Err(Stop::usage(format!(
            "{} holds no checkpoint of a finished training; name a run's folder, a training's folder in its `cells`, or a checkpoint",
            source.display()
        ))),
        ([], _) => Err(Stop {
            exit: Exit::NothingSelected,
            message: format!("no training passes the filters; there are {}", known.join(", ")),
        }
        .into()),
        (several, _) => {
            let names: Vec<&str> = several.iter().map(|it| it.slug.as_str()).collect();
            Err(Stop::usage(format!(
                "several trainings are meant: {}; choose with --filter, such as `--filter defense=mart --filter seed=0`",
                names.join(", ")
            )))
        }
    }
}

fn folder_name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a training passes all filters but that of the checkpoint. Its folder is called
/// `KEY-DATASET-NETWORK-DEFENSE-sSEED`, its checkpoint names the network.
fn passes(slug: &str, file: &Path, filters: &[(&str, &str)]) -> Result<bool> {
    if filters.iter().all(|(key, _)| *key == "checkpoint") {
        return Ok(true);
    }
    let (_, about): (_, About) =
        checkpoint::load(file, &Device::Cpu).map_err(|error| Stop::usage(format!("{error:#}")))?;
    let Some(parts) = parts(slug, &about.network) else {
        return Ok(false);
    };
    Ok(filters.iter().all(|(key, value)| match *key {
        "dataset" => parts.dataset == *value,
        "network" => about.network == *value,
        "defense" => parts.defense == plan::slug(value),
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
