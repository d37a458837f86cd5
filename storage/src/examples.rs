//! Files of adversarial images, of this program or others: safetensors, what `torch.save` makes of a dictionary or
//! tuple, or `numpy.savez`.
//!
//! | tensor | shape | what |
//! |---|---|---|
//! | `adversarial`, `x_adv`, `adv_complete` (AutoAttack) or `adv_inputs` (torchattacks) | `[N, C, H, W]` | the attacked images, in `[0, 1]` |
//! | `clean`, `x` or `inputs` | the same | the images before; may be left out if `ids` are there |
//! | `labels` or `y` | `[N]`, integers | the true classes |
//! | `ids` | `[N]`, integers | places in the data set's test split; may be left out |
//!
//! In a tuple the images are the tensor of four dimensions and the labels that of one.

use std::path::Path;

use anyhow::{Result, ensure};
use attacks::Threat;
use candle_core::{DType, Tensor};
use models::Checkpoint;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::UserError;
use crate::files;

/// The file of the images that a white-box evaluation keeps in its folder for people to view.
pub const FILE: &str = "examples.safetensors";

/// Of how many test images, from the first, an evaluation keeps clean and attacked pixels: four, or as many as fit into
/// 128 KiB. Which images are kept does not depend on the outcome.
pub fn kept(image: [usize; 3]) -> usize {
    const MOST: usize = 4;
    const BYTES: usize = 128 * 1024;
    let pair = 2 * size_of::<f32>() * image.iter().product::<usize>();
    MOST.min(BYTES / pair.max(1))
}

/// The metadata entry that describes a file of this program.
const METADATA: &str = "rampart_examples";

/// The description in a file of this program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The data set's name.
    pub dataset: String,
    /// Of the images and labels that were read.
    pub dataset_digest: String,
    /// The network's name.
    pub model: String,
    /// BLAKE3 of the checkpoint's file.
    pub checkpoint: String,
    /// The threat model of the attack.
    pub threat: Threat,
    /// The attack's name.
    pub attack: String,
    /// The attack's resolved configuration.
    pub config: serde_json::Value,
    /// The training's seed.
    pub seed: u64,
    /// Images still classified correctly.
    pub correct: u64,
}

/// Adversarial images with their labels.
#[derive(Debug, Clone)]
pub struct Examples {
    /// `[N, C, H, W]`, f32.
    pub adversarial: Tensor,
    /// The images before the attack, `[N, C, H, W]`.
    pub clean: Option<Tensor>,
    /// The true classes, `[N]`.
    pub labels: Vec<u32>,
    /// Indices into the data set's test split, `[N]`.
    pub ids: Option<Vec<u64>>,
    /// The description, if a program of ours wrote the file.
    pub about: Option<About>,
}

impl Examples {
    /// Writes a file complete or not at all, and forces it to disk.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        files::write(&std::path::absolute(file)?, &self.bytes()?)
    }

    /// The same for one of a cell's files, which are forced to disk together.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_part(&self, file: &Path) -> Result<()> {
        files::write_part(file, &self.bytes()?)
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let floats = |tensor: &Tensor| -> Result<(Dtype, Vec<usize>, Vec<u8>)> {
            let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            Ok((Dtype::F32, tensor.dims().to_vec(), bytes))
        };
        let integers = |values: &mut dyn Iterator<Item = i64>| {
            let values: Vec<i64> = values.collect();
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (Dtype::I64, vec![values.len()], bytes)
        };
        let mut parts = vec![
            ("adversarial", floats(&self.adversarial)?),
            (
                "labels",
                integers(&mut self.labels.iter().map(|label| i64::from(*label))),
            ),
        ];
        if let Some(clean) = &self.clean {
            parts.push(("clean", floats(clean)?));
        }
        if let Some(ids) = &self.ids {
            parts.push(("ids", integers(&mut ids.iter().map(|id| *id as i64))));
        }
        let views = parts.iter().map(|(name, (dtype, shape, bytes))| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).expect("as many bytes as the shape needs");
            (*name, view)
        });
        let about = self.about.as_ref().map(serde_json::to_string).transpose()?;
        let metadata = about.map(|text| [(METADATA.to_string(), text)].into());
        Ok(safetensors::serialize(views, metadata)?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`UserError`] if it does not hold images of this form.
    pub fn read(file: &Path) -> Result<Self> {
        let missing =
            |_: Incomplete<'_>| anyhow::bail!("it lacks `labels` (or `y`), or both `clean` images (or `x`) and `ids`");
        Self::read_with(file, missing)
    }

    /// Reads a file that may lack labels, or both clean images and `ids`. `find` is then asked which images of a data set
    /// the file holds: for their places and labels.
    ///
    /// # Errors
    /// [`UserError`] if it does not hold images of this form; what `find` fails with.
    pub fn read_with(file: &Path, find: impl FnOnce(Incomplete<'_>) -> Result<Places>) -> Result<Self> {
        let checkpoint = Checkpoint::read(file).map_err(|error| UserError::raise(of_examples(&error.to_string())))?;
        let named = |error: anyhow::Error| UserError::raise(format!("examples `{}`: {error:#}", file.display()));
        Self::out_of(&checkpoint, find).map_err(named)
    }

    fn out_of(checkpoint: &Checkpoint, places: impl FnOnce(Incomplete<'_>) -> Result<Places>) -> Result<Self> {
        let [by_place, labels_by_place] = by_place(checkpoint)?;
        let find = |names: &[&str]| names.iter().find_map(|name| checkpoint.tensors.get(*name));
        let missing = || {
            let there: Vec<&str> = checkpoint.tensors.keys().take(10).map(String::as_str).collect();
            anyhow::anyhow!(
                "there is no tensor `{}`, only `{}`",
                ADVERSARIAL.join("` or `"),
                there.join("`, `")
            )
        };
        let adversarial = find(ADVERSARIAL).or(by_place).ok_or_else(missing)?;
        let labels = find(&["labels", "y"]).or(labels_by_place);
        let shape = adversarial.dims();
        ensure!(
            shape.len() == 4 && !shape.contains(&0),
            "the images are {shape:?}, not [N, C, H, W]"
        );
        let integers = |name: &str, tensor: &Tensor| -> Result<Vec<i64>> {
            ensure!(
                tensor.dims() == [shape[0]],
                "{name} are {:?} for {} images",
                tensor.dims(),
                shape[0]
            );
            ensure!(tensor.dtype() == DType::I64, "{name} are not integers");
            Ok(tensor.to_vec1()?)
        };
        let label = |label: i64| u32::try_from(label).map_err(|_| anyhow::anyhow!("{label} is no label"));
        let labels = match labels {
            None => None,
            Some(labels) => Some(
                integers("labels", labels)?
                    .into_iter()
                    .map(label)
                    .collect::<Result<Vec<_>>>()?,
            ),
        };
        let ids = match find(&["ids"]) {
            None => None,
            Some(ids) => {
                let id = |id: i64| u64::try_from(id).map_err(|_| anyhow::anyhow!("{id} is no place in a data set"));
                Some(integers("ids", ids)?.into_iter().map(id).collect::<Result<Vec<_>>>()?)
            }
        };
        let clean = find(&["clean", "x", "inputs"]);
        if let Some(clean) = clean {
            ensure!(
                clean.dims() == shape,
                "the clean images are {:?}, the adversarial ones {shape:?}",
                clean.dims()
            );
        }
        let images = |tensor: &Tensor| -> Result<Tensor> {
            ensure!(
                tensor.dtype() != DType::I64,
                "the images are integers; divide them by 255"
            );
            Ok(tensor.to_dtype(DType::F32)?)
        };
        let about = checkpoint
            .metadata
            .get(METADATA)
            .map(|text| serde_json::from_str(text))
            .transpose();
        let adversarial = images(adversarial)?;
        let (ids, labels) = match (labels, ids) {
            (Some(labels), ids) if clean.is_some() || ids.is_some() => (ids, labels),
            (labels, ids) => {
                let found = places(Incomplete {
                    adversarial: &adversarial,
                    ids: ids.as_deref(),
                    labels: labels.as_deref(),
                })?;
                (Some(found.ids), labels.unwrap_or(found.labels))
            }
        };
        Ok(Self {
            adversarial,
            clean: clean.map(images).transpose()?,
            labels,
            ids,
            about: about.map_err(|error| anyhow::anyhow!("its description cannot be read: {error}"))?,
        })
    }
}

/// What a file holds that does not say which images of a data set they are.
#[derive(Debug, Clone, Copy)]
pub struct Incomplete<'a> {
    /// `[N, C, H, W]`, f32.
    pub adversarial: &'a Tensor,
    /// Their places, if the file has them but no labels.
    pub ids: Option<&'a [u64]>,
    /// The true classes, if the file has them.
    pub labels: Option<&'a [u32]>,
}

/// Which images of a data set's test split they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Indices into the test split.
    pub ids: Vec<u64>,
    /// The labels there.
    pub labels: Vec<u32>,
}

/// What others call attacked images: by hand, AutoAttack's evaluation, torchattacks' `save`.
const ADVERSARIAL: &[&str] = &["adversarial", "x_adv", "adv_complete", "adv_inputs"];

/// The images and labels of a tuple.
fn by_place(checkpoint: &Checkpoint) -> Result<[Option<&Tensor>; 2]> {
    let tuple = checkpoint.tensors.keys().all(|name| name.parse::<usize>().is_ok());
    let of_rank = |rank: usize| -> Vec<&Tensor> {
        let tensors = checkpoint
            .tensors
            .values()
            .filter(|tensor| tuple && tensor.rank() == rank);
        tensors.collect()
    };
    let (images, labels) = (of_rank(4), of_rank(1));
    ensure!(
        images.len() < 2 && labels.len() < 2,
        "a tuple does not name its {} tensors of images and {} of labels; save `{{\"x_adv\": …, \"x\": …, \"y\": …}}`",
        images.len(),
        labels.len()
    );
    Ok([images.first().copied(), labels.first().copied()])
}

/// A checkpoint's error for a file of examples.
fn of_examples(problem: &str) -> String {
    let advice = "save `{\"x_adv\": …, \"x\": …, \"y\": …}`";
    problem
        .replace("checkpoint `", "examples `")
        .replace("the checkpoint", "the examples")
        .replace("save `model.state_dict()` alone", advice)
        .replace("save `model.state_dict()`", advice)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn what_is_kept_is_small() {
        let images = [[1, 8, 8], [1, 28, 28], [3, 32, 32], [3, 64, 64], [3, 224, 224]];
        assert_eq!(images.map(kept), [4, 4, 4, 1, 0]);
    }

    #[test]
    fn what_is_written_is_read_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("it.safetensors");
        let images = Tensor::rand(0f32, 1.0, (2, 1, 2, 3), &Device::Cpu).unwrap();
        let whole = Examples {
            adversarial: images.clone(),
            clean: Some(images.clone()),
            labels: vec![3, 0],
            ids: Some(vec![7, 9]),
            about: None,
        };
        whole.write(&file).unwrap();
        let read = Examples::read(&file).unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&read.adversarial), values(&images));
        assert_eq!(
            (&read.labels[..], read.ids.as_deref()),
            (&[3, 0][..], Some(&[7, 9][..]))
        );

        let refused = |examples: Examples, part: &str| {
            examples.write(&file).unwrap();
            let error = Examples::read(&file).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("it.safetensors"), "{error}");
        };
        refused(
            Examples {
                labels: vec![1],
                ..whole.clone()
            },
            "labels are [1] for 2 images",
        );
        refused(
            Examples {
                ids: Some(vec![1]),
                ..whole.clone()
            },
            "ids are [1] for 2 images",
        );
        let flat = images.flatten_from(1).unwrap();
        refused(
            Examples {
                adversarial: flat.clone(),
                ..whole.clone()
            },
            "not [N, C, H, W]",
        );
        refused(
            Examples {
                clean: Some(flat),
                ..whole
            },
            "the clean images are [2, 6]",
        );
        let tuple = |tensors: Vec<(&str, Tensor)>| {
            let tensors: std::collections::HashMap<_, _> = tensors.into_iter().collect();
            candle_core::safetensors::save(&tensors, &file).unwrap();
            Examples::read_with(&file, |incomplete| {
                let ids = incomplete.ids.map_or(vec![1, 2], <[u64]>::to_vec);
                let labels = ids.iter().map(|id| *id as u32 + 5).collect();
                Ok(Places { ids, labels })
            })
        };
        let labels = Tensor::new(&[3i64, 0], &Device::Cpu).unwrap();
        let both = |read: Examples| (read.labels, read.ids);
        for name in ["adv_complete", "adv_inputs", "0"] {
            let read = tuple(vec![(name, images.clone())]).unwrap();
            assert_eq!(both(read), (vec![6, 7], Some(vec![1, 2])));
        }
        let read = tuple(vec![("adv_inputs", images.clone()), ("labels", labels.clone())]).unwrap();
        assert_eq!(both(read), (vec![3, 0], Some(vec![1, 2])));
        let read = tuple(vec![("0", images.clone()), ("1", labels.clone())]).unwrap();
        assert_eq!(both(read), (vec![3, 0], Some(vec![1, 2])));
        let places = Tensor::new(&[8i64, 9], &Device::Cpu).unwrap();
        let read = tuple(vec![("x_adv", images.clone()), ("ids", places)]).unwrap();
        assert_eq!(both(read), (vec![13, 14], Some(vec![8, 9])));
        let whole = vec![("x_adv", images.clone()), ("inputs", images.clone()), ("y", labels)];
        assert_eq!(both(tuple(whole).unwrap()), (vec![3, 0], None));
        let error = tuple(vec![("0", images.clone()), ("1", images.clone())]).unwrap_err();
        assert!(
            error.to_string().contains("does not name its 2 tensors of images"),
            "{error}"
        );
        assert!(Examples::read(&file).is_err());

        std::fs::write(&file, b"nothing").unwrap();
        assert!(Examples::read(&file).unwrap_err().to_string().contains("examples `"));
    }
}
