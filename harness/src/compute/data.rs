//! A data set as a matrix cuts it, and batches out of it.

mod extra;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use attacks::Batch;
use candle_core::{Device, Tensor};
use datasets::{Augment, Crop, Dataset, Padding, Split, Verify};
use defenses::Augmentation;
use kernels::resident::Cut;
use plan::matrix::{DatasetEntry, Limit, SelectionSplit, Unlabeled};
use random::{Purpose, Stream};

use crate::exit::Stop;

/// Data sets by how the matrix cuts them.
pub(crate) type AllData = BTreeMap<String, Arc<Data>>;

/// The key of a data set's cut among [`AllData`].
pub(crate) fn data_key(entry: &DatasetEntry) -> String {
    serde_json::to_string(entry).expect("plain data")
}

/// Index of the draw of labeled examples among those of [`Purpose::Subset`], after the limits of both splits.
const LABELED: u64 = 2;
/// And of that of a limited file of unlabeled images; 3 is S⁺'s.
const EXTRA: u64 = 4;

/// A data set with the indices that each use of it sees. Indices count in the official splits, so
/// that an example keeps its identity, and with it its draws, whatever subset it is in.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) dataset: Dataset,
    /// Examples of the official training split, which come first.
    official: usize,
    /// To train on, with their labels.
    pub(crate) train: Vec<usize>,
    /// To train on if a teacher labels them. Those of a file of its own follow the official split.
    pub(crate) unlabeled: Vec<usize>,
    pub(crate) validation: Vec<usize>,
    pub(crate) test: Vec<usize>,
}

impl Data {
    /// Examples of an epoch of a training that learns from a teacher or not. With a share of unlabeled ones, those of a
    /// file of its own do not make it longer.
    pub(crate) fn epoch(&self, unlabeled: Option<Unlabeled>) -> usize {
        let official = |index: &&usize| **index < self.official;
        self.train.len()
            + match unlabeled {
                None => 0,
                Some(Unlabeled { share: None, .. }) => self.unlabeled.len(),
                Some(Unlabeled { share: Some(_), .. }) => self.unlabeled.iter().filter(official).count(),
            }
    }

    /// Reads and cuts a data set. The cut is the same for every seed of a matrix.
    pub(crate) fn load(entry: &DatasetEntry, root: &Path) -> Result<Self> {
        let verify = if entry.verify { Verify::Yes } else { Verify::No };
        let mut dataset = datasets::load(&entry.name, root, verify).map_err(|error| Stop::usage(error.to_string()))?;
        let fixed = Stream::new(0);
        let kept = |split: &Split, n: Option<usize>, which: u64| {
            let all: Vec<usize> = (0..split.len()).collect();
            match n {
                Some(n) => datasets::limit(split.labels(), &all, n, &fixed.of(Purpose::Subset).at(which)),
                None => all,
            }
        };
        let train = kept(&dataset.train, entry.limit.train, 0);
        let test = kept(&dataset.test, entry.limit.test, 1);
        let labels = dataset.train.labels_at(&train);
        let held_out = datasets::hold_out(&labels, entry.validation, &fixed.of(Purpose::Split))
            .map_err(|error| Stop::usage(format!("data set {}: {error}", entry.name)))?;
        let pick = |indices: &[usize]| indices.iter().map(|&i| train[i]).collect::<Vec<_>>();
        let (mut rest, validation) = (pick(&held_out.train), pick(&held_out.validation));
        let mut unlabeled = Vec::new();
        if let Some(labeled) = entry.labeled {
            if labeled >= rest.len() {
                return Err(Stop::usage(format!(
                    "data set {}: `labeled` is {labeled}, and there are only {} examples to train on",
                    entry.name,
                    rest.len()
                )));
            }
            let random = fixed.of(Purpose::Subset).at(LABELED);
            let kept = datasets::limit(dataset.train.labels(), &rest, labeled, &random);
            unlabeled = rest
                .iter()
                .copied()
                .filter(|index| kept.binary_search(index).is_err())
                .collect();
            rest = kept;
        }
        if rest.is_empty() || test.is_empty() {
            return Err(Stop::usage(format!(
                "data set {}: no examples are left to train or test on",
                entry.name
            )));
        }
        let official = dataset.train.len();
        if let Some(file) = &entry.extra {
            extra::append(&mut dataset, &root.join(file)).map_err(|error| Stop::usage(format!("{error:#}")))?;
            let more: Vec<usize> = (official..dataset.train.len()).collect();
            let random = fixed.of(Purpose::Subset).at(EXTRA);
            let most = entry.limit.train.unwrap_or(more.len());
            unlabeled.extend(datasets::limit(dataset.train.labels(), &more, most, &random));
        }
        Ok(Self {
            official,
            train: rest,
            unlabeled,
            validation,
            test,
            dataset,
        })
    }

    /// Reads a data set of which only test images are needed, at most `limit` of them. With `verify`, its checksums must be
    /// the official ones.
    pub(crate) fn load_test(name: &str, limit: Option<usize>, verify: bool, root: &Path) -> Result<Self> {
        let entry = DatasetEntry {
            name: name.to_string(),
            validation: 0,
            labeled: None,
            extra: None,
            limit: Limit {
                train: None,
                test: limit,
            },
            verify,
        };
        Self::load(&entry, root)
    }

    /// Examples of the training split with these labels, augmented with draws from `random`.
    pub(crate) fn training_batch(
        &self,
        indices: &[usize],
        labels: Vec<u32>,
        augment: &[Augmentation],
        random: &Stream,
        device: &Device,
        resident: Option<&Resident>,
    ) -> Result<Batch> {
        let split = &self.dataset.train;
        let ids: Vec<u64> = indices.iter().map(|&index| index as u64).collect();
        if let Some(Resident(bytes)) = resident
            && let Some(images) = cut_on_card(bytes, split, &augmenter(augment), random, &ids)?
        {
            let labels = Tensor::from_vec(labels, indices.len(), device)?;
            return Ok(Batch { images, labels, ids });
        }
        let mut pixels = Vec::new();
        split.fill(indices, &mut pixels);
        let mut augmented = vec![0.0; pixels.len()];
        augmenter(augment).apply_all(random, &ids, split.image(), &pixels, &mut augmented);
        batch(split, indices, augmented, labels, device)
    }

    /// Examples as they are, of the split on which checkpoints are chosen.
    pub(crate) fn selection(&self, split: SelectionSplit) -> (&Split, &[usize]) {
        match split {
            SelectionSplit::Validation => (&self.dataset.train, &self.validation),
            SelectionSplit::Test => (&self.dataset.test, &self.test),
        }
    }
}

/// The bytes of a training split on a GPU, so that a step sends nothing but indices.
#[derive(Debug)]
pub(crate) struct Resident(Tensor);

impl Resident {
    /// None for the CPU, where the split is at hand already.
    pub(crate) fn new(split: &Split, device: &Device) -> Result<Option<Self>> {
        if device.is_cpu() {
            return Ok(None);
        }
        let [channels, height, width] = split.image();
        let bytes = Tensor::from_slice(split.bytes(), (split.len(), channels, height, width), device)?;
        Ok(Some(Self(bytes)))
    }
}

/// The images of these ids, each with the draw that [`Augment::apply_all`] would give it.
fn cut_on_card(
    bytes: &Tensor,
    split: &Split,
    augment: &Augment,
    random: &Stream,
    ids: &[u64],
) -> Result<Option<Tensor>> {
    let cut = Cut {
        image: split.image(),
        pad: augment.crop.map_or(0, |crop| crop.pad),
        reflect: augment.crop.is_some_and(|crop| crop.padding == Padding::Reflect),
        scale: split.scale(),
    };
    let rows: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
    let draws = ids.iter().map(|&id| augment.draw(random, id));
    let draws: Vec<[u32; 3]> = draws
        .map(|draw| [draw.top as u32, draw.left as u32, u32::from(draw.flip)])
        .collect();
    Ok(kernels::resident::crop_flip(bytes, &rows, &draws, &cut)?)
}

/// Examples as they are.
pub(crate) fn plain_batch(split: &Split, indices: &[usize], device: &Device) -> Result<Batch> {
    let mut pixels = Vec::new();
    split.fill(indices, &mut pixels);
    batch(split, indices, pixels, split.labels_at(indices), device)
}

fn batch(split: &Split, indices: &[usize], pixels: Vec<f32>, labels: Vec<u32>, device: &Device) -> Result<Batch> {
    let [channels, height, width] = split.image();
    Ok(Batch {
        images: Tensor::from_vec(pixels, (indices.len(), channels, height, width), device)?,
        labels: Tensor::from_vec(labels, indices.len(), device)?,
        ids: indices.iter().map(|&index| index as u64).collect(),
    })
}

/// The data set crate's form of a recipe's augmentations.
pub(crate) fn augmenter(list: &[Augmentation]) -> Augment {
    let mut augment = Augment::default();
    for augmentation in list {
        match augmentation {
            Augmentation::Crop4 => {
                augment.crop = Some(Crop {
                    pad: 4,
                    padding: Padding::Zero,
                })
            }
            Augmentation::Crop4Reflect => {
                augment.crop = Some(Crop {
                    pad: 4,
                    padding: Padding::Reflect,
                })
            }
            Augmentation::Flip => augment.flip = true,
        }
    }
    augment
}
