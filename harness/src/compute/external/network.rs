//! A network from a file, with the normalisation it was trained with.

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{Device, Result as TensorResult, Tensor};
use models::{Checkpoint, CheckpointError, Classifier, Loaded, Mode, Network, Networks};
use random::Stream;
use serde_json::{Value, json};

use crate::exit::Stop;

/// Which network: its file, and how to read it.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkFile {
    pub(crate) checkpoint: PathBuf,
    /// The name of its architecture.
    pub(crate) model: String,
    /// Entries of the checkpoint to ignore.
    pub(crate) ignore: Vec<String>,
    /// Which copy of the network to take, where the file holds several.
    pub(crate) entry: Option<String>,
    /// What to subtract from each channel; empty: nothing.
    pub(crate) mean: Vec<f64>,
    /// What to divide each channel by after that.
    pub(crate) std: Vec<f64>,
}

/// A network from a file.
pub(crate) struct External {
    pub(crate) network: Network,
    normalisation: Option<Normalisation>,
    /// BLAKE3 of the file.
    pub(crate) digest: String,
    /// How it was read.
    pub(crate) remarks: Vec<String>,
    pub(crate) file: NetworkFile,
}

impl NetworkFile {
    /// Builds the architecture for such images and loads the parameters.
    pub(crate) fn load(&self, networks: &Networks, image: [usize; 3], classes: usize) -> Result<External> {
        let usage = |error: &dyn std::error::Error| {
            let causes = std::iter::successors(error.source(), |cause| cause.source());
            Stop::usage(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
        };
        let network = networks.find_for(&self.model, image, classes);
        let network = network.and_then(|architecture| architecture.build(&Device::Cpu, &Stream::new(0)));
        let network = network.map_err(|error| usage(&error))?;
        let [channels, height, width] = image;
        let normalisation = self.normalisation(channels)?;
        let checkpoint = Checkpoint::read_for(&self.checkpoint, &network, self.entry.as_deref());
        let checkpoint = checkpoint.map_err(|error| match &error {
            CheckpointError::Several { labels, .. } => {
                let options = labels.iter().map(|label| format!("`--entry {label}`"));
                Stop::usage(format!("{error}: {}", options.collect::<Vec<_>>().join(" or ")))
            }
            _ => usage(&error),
        })?;
        let loaded = checkpoint.load_into(&network, &self.ignore).map_err(|error| {
            let normalises = if holds_normalisation(&checkpoint) {
                "; the numbers of a normalisation have one: give them with --mean and --std, and then ignore their entries"
            } else {
                ""
            };
            Stop::usage(format!(
                "checkpoint `{}` for images {channels}×{height}×{width} and {classes} classes: {error}\n\
                 choose another --model or --dataset, or ignore an entry that has no effect with --ignore ENTRY{normalises}",
                self.checkpoint.display()
            ))
        })?;
        Ok(External {
            network,
            normalisation,
            digest: digest_of(&self.checkpoint)?,
            remarks: remarks(&checkpoint, &loaded),
            file: self.clone(),
        })
    }

    fn normalisation(&self, channels: usize) -> Result<Option<Normalisation>> {
        let (mean, std) = (&self.mean[..], &self.std[..]);
        if mean.is_empty() {
            return Ok(None);
        }
        if mean.len() != channels || std.len() != channels {
            return Err(Stop::usage(format!(
                "--mean and --std need one number for each of the {channels} channels, not {} and {}",
                mean.len(),
                std.len()
            )));
        }
        if !mean.iter().chain(std).all(|value| value.is_finite()) || std.iter().any(|value| *value <= 0.0) {
            return Err(Stop::usage("--mean and --std must be finite, and --std positive"));
        }
        for (option, values) in [("mean", mean), ("std", std)] {
            check_units(option, values)?;
        }
        Ok(Some(Normalisation {
            mean: mean.to_vec(),
            std: std.to_vec(),
        }))
    }

    /// The file's name, by which rows know the network.
    pub(crate) fn name(&self) -> String {
        let name = self.checkpoint.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// Whether a checkpoint has entries that are called as those of a normalisation of the images are.
fn holds_normalisation(checkpoint: &Checkpoint) -> bool {
    const NAMES: &[&str] = &["mean", "std", "mu", "sigma", "new_mean", "new_std"];
    let mut names = checkpoint.beside.keys().chain(checkpoint.tensors.keys());
    names.any(|name| name.rsplit('.').next().is_some_and(|last| NAMES.contains(&last)))
}

/// Refuses a mean or deviation that no channel of images in `[0, 1]` can have.
fn check_units(option: &str, values: &[f64]) -> Result<()> {
    if values.iter().all(|value| *value <= 1.0) {
        return Ok(());
    }
    let written = |scale: f64| {
        let texts = values.iter().map(|value| {
            let rounded = (value / scale * 1e6).round() / 1e6;
            rounded.to_string()
        });
        texts.collect::<Vec<_>>().join(",")
    };
    Err(Stop::usage(format!(
        "--{option} {}: images here are in [0, 1], where no channel has such a number; these seem to be for pixels from 0 to \
         255, so divide them by 255: `--{option} {}`",
        written(1.0),
        written(255.0)
    )))
}

/// How a checkpoint was read, if anything was stripped, ignored or converted.
fn remarks(checkpoint: &Checkpoint, loaded: &Loaded) -> Vec<String> {
    let mut remarks = Vec::new();
    if !checkpoint.within.is_empty() {
        remarks.push(format!("parameters found under `{}`", checkpoint.within.join("` in `")));
    }
    if !checkpoint.prefix.is_empty() {
        let of = if checkpoint.beside.is_empty() {
            "every name"
        } else {
            "the network's names"
        };
        remarks.push(format!("prefix `{}` taken off {of}", checkpoint.prefix));
    }
    if !checkpoint.apart.is_empty() {
        remarks.push(format!(
            "other copies of the network in the file, not taken: `{}`",
            checkpoint.apart.join("`, `")
        ));
    }
    if !loaded.counts.is_empty() {
        remarks.push(format!(
            "`{}` counts averaged models and has no effect",
            loaded.counts.join("`, `")
        ));
    }
    if !loaded.ignored.is_empty() {
        remarks.push(format!("ignored as asked: `{}`", loaded.ignored.join("`, `")));
    }
    if !loaded.kept.is_empty() {
        remarks.push(format!(
            "{} entries without effect are not in the file (`sub_block1`)",
            loaded.kept.len()
        ));
    }
    remarks
}

/// BLAKE3 of a file, hexadecimal.
fn digest_of(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).map_err(|error| Stop::usage(format!("cannot read {}: {error}", file.display())))?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

impl External {
    /// The normalisation, for a key.
    pub(crate) fn normalisation(&self) -> Value {
        json!(
            self.normalisation
                .as_ref()
                .map(|normalisation| [&normalisation.mean, &normalisation.std])
        )
    }
}

/// The network as an attack sees it: it takes images in `[0, 1]` and normalises them itself.
impl Classifier for External {
    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> TensorResult<Tensor> {
        match &self.normalisation {
            None => self.network.logits(images, mode),
            Some(normalisation) => self.network.logits(&normalisation.apply(images)?, mode),
        }
    }

    fn classes(&self) -> usize {
        self.network.classes()
    }

    fn freeze(&self) -> TensorResult<Option<Box<dyn Classifier>>> {
        let frozen = self.network.freeze()?;
        let Some(normalisation) = self.normalisation.clone() else {
            return Ok(frozen);
        };
        Ok(frozen.map(|inner| -> Box<dyn Classifier> { Box::new(Normalised { normalisation, inner }) }))
    }
}

/// (x − mean) / std, channel by channel.
#[derive(Debug, Clone)]
struct Normalisation {
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl Normalisation {
    fn apply(&self, images: &Tensor) -> TensorResult<Tensor> {
        let channels = |values: &[f64]| {
            let values = Tensor::new(values, images.device())?.to_dtype(images.dtype())?;
            values.reshape((1, values.elem_count(), 1, 1))
        };
        images
            .broadcast_sub(&channels(&self.mean)?)?
            .broadcast_div(&channels(&self.std)?)
    }
}

/// A frozen network that sees normalised images.
struct Normalised {
    normalisation: Normalisation,
    inner: Box<dyn Classifier>,
}

impl Classifier for Normalised {
    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> TensorResult<Tensor> {
        self.inner.logits(&self.normalisation.apply(images)?, mode)
    }

    fn classes(&self) -> usize {
        self.inner.classes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_normalised_network_sees_normalised_images() {
        let image = [3, 8, 8];
        let build = || models::build("tiny-cnn", image, 4, &Stream::new(3)).unwrap();
        let images = Tensor::rand(0f32, 1.0, (2, 3, 8, 8), &candle_core::Device::Cpu).unwrap();
        let normalised = External {
            network: build(),
            normalisation: Some(Normalisation {
                mean: vec![0.5, 0.25, 0.0],
                std: vec![0.5, 1.0, 2.0],
            }),
            digest: String::new(),
            remarks: Vec::new(),
            file: NetworkFile::default(),
        };
        let channel =
            |c: usize, mean: f64, std: f64| ((images.narrow(1, c, 1).unwrap() - mean).unwrap() / std).unwrap();
        let by_hand = Tensor::cat(&[channel(0, 0.5, 0.5), channel(1, 0.25, 1.0), channel(2, 0.0, 2.0)], 1).unwrap();
        let numbers = |logits: Tensor| logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = numbers(build().logits(&by_hand, Mode::Eval).unwrap());
        let frozen = normalised.freeze().unwrap().unwrap();
        for found in [&normalised as &dyn Classifier, frozen.as_ref()] {
            for (a, b) in numbers(found.logits(&images, Mode::Eval).unwrap())
                .iter()
                .zip(&expected)
            {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }
}
