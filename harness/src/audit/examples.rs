//! The rules of saved adversarial images: inside the threat model, made from the data set, and counted right.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use attacks::{Norm, Threat};
use candle_core::{DType, Device, Tensor};
use models::Networks;
use storage::examples::{Examples, Incomplete, Places};

use super::places;
use crate::compute::data::{Data, plain_batch};
use crate::compute::evaluation::SLACK;
use crate::compute::external::{self, External, NetworkFile};
use crate::compute::recount::recount;
use crate::exit::{Exit, Stop};
use crate::failure::Failure;
use crate::stderr::say;

/// Which examples, on which network, and which threat model they must satisfy.
pub(crate) struct ExamplesRequest<'a> {
    pub(crate) file: &'a Path,
    pub(crate) network: NetworkFile,
    /// The data set they were made from; else the file's own.
    pub(crate) dataset: Option<&'a str>,
    /// The threat model; else the file's own.
    pub(crate) threat: Option<&'a str>,
    pub(crate) data_dir: Option<&'a Path>,
    /// Accept only data whose checksums are official.
    pub(crate) verify: bool,
}

const NO_THREAT: &str = "the file names no threat model; give it with --threat linf:8/255";

/// Evaluates saved adversarial images again and prints what is found. Fails if a rule is broken.
pub(crate) fn verify_examples(request: &ExamplesRequest<'_>, networks: &Networks, out: &mut dyn Write) -> Result<()> {
    let mut found = None;
    let examples = Examples::read_with(request.file, |incomplete| {
        let (places, how) = request.places(&incomplete)?;
        found = how;
        Ok(places)
    })?;
    if let Some(how) = found {
        writeln!(out, "{how}")?;
    }
    let threat = request.threat_of(&examples)?;
    let entry = request.entry_of(&examples)?;
    let network = request.network.load(networks, entry.image, entry.classes.len())?;
    for remark in &network.remarks {
        say(format_args!("{}: {remark}", request.network.checkpoint.display()));
    }
    let mut broken = Vec::new();
    let unknown = |label: &&u32| **label as usize >= entry.classes.len();
    let wrong = examples.labels.iter().filter(unknown).count();
    if wrong > 0 {
        broken.push(format!("{wrong} labels are no class of {}", entry.name));
    }
    let official = request.official(&examples, entry.name, out)?;
    if let (Some(official), Some(clean)) = (&official, &examples.clean) {
        check_official(official, clean, &examples.labels, entry.name, &mut broken)?;
    }
    let clean = match (&examples.clean, &official) {
        (Some(clean), _) => clean,
        (None, Some(official)) => &official.images,
        (None, None) => unreachable!("one of the two was read"),
    };
    let farthest = check_perturbations(clean, &examples.adversarial, &threat, &mut broken)?;
    let n = examples.labels.len();
    writeln!(out, "examples: {n} from {}", request.file.display())?;
    writeln!(
        out,
        "largest perturbation: {farthest:.7} ({} ≤ {})",
        threat.norm, threat.epsilon
    )?;
    count(&network, clean, &examples, &mut broken, out)?;
    for rule in &broken {
        writeln!(out, "broken: {rule}")?;
    }
    if !broken.is_empty() {
        return Err(Stop {
            exit: Exit::Integrity,
            message: format!("integrity: {}: {}", request.file.display(), broken.join("; ")),
        }
        .into());
    }
    writeln!(out, "every rule is kept")?;
    Ok(())
}

/// Images and labels of a data set.
struct Official {
    images: Tensor,
    labels: Vec<u32>,
}

impl ExamplesRequest<'_> {
    /// Which images of the data set a file holds that does not say so, and how that was found out.
    fn places(&self, file: &Incomplete<'_>) -> Result<(Places, Option<&'static str>)> {
        let name = self.dataset.ok_or_else(|| {
            Stop::usage(
                "it lacks labels, or both the clean images and `ids`; name the data set of its images with --dataset",
            )
        })?;
        let entry = datasets::entry(name).map_err(|error| Stop::usage(error.to_string()))?;
        check_shape(entry, file.adversarial)?;
        if let Some(ids) = file.ids {
            let labels = self.official_at(name, Some(ids))?.labels;
            let ids = ids.to_vec();
            return Ok((Places { ids, labels }, None));
        }
        let threat = external::threat(self.threat.ok_or_else(|| Stop::usage(NO_THREAT))?)?;
        let split = self.official_at(name, None)?;
        let (ids, how) = places::find(file, &split.images, &split.labels, &threat).map_err(|problem| {
            Stop::usage(format!(
                "{problem} of {name}, so the unperturbed images are unknown; add them as `clean` (or `x`), or their places \
                 in the test split as `ids`"
            ))
        })?;
        let labels = ids.iter().map(|id| split.labels[*id as usize]).collect();
        Ok((Places { ids, labels }, Some(how)))
    }

    fn threat_of(&self, examples: &Examples) -> Result<Threat> {
        match (self.threat, &examples.about) {
            (Some(text), _) => external::threat(text),
            (None, Some(about)) => {
                let checked = about.threat.check();
                checked.map_err(|invalid| Stop::usage(format!("the file's threat model: {}", invalid.message)))?;
                Ok(about.threat)
            }
            (None, None) => Err(Stop::usage(NO_THREAT)),
        }
    }

    fn entry_of(&self, examples: &Examples) -> Result<&'static datasets::Entry> {
        let recorded = examples.about.as_ref().map(|about| about.dataset.as_str());
        let name = self.dataset.or(recorded);
        let name = name.ok_or_else(|| Stop::usage("the file names no data set; give it with --dataset"))?;
        let entry = datasets::entry(name).map_err(|error| Stop::usage(error.to_string()))?;
        check_shape(entry, &examples.adversarial)?;
        Ok(entry)
    }

    /// The data set's own images and labels, where they are compared with the file's or replace them.
    fn official(&self, examples: &Examples, name: &str, out: &mut dyn Write) -> Result<Option<Official>> {
        match (&examples.ids, &examples.clean) {
            (Some(ids), clean) if self.dataset.is_some() || clean.is_none() => {
                self.official_at(name, Some(ids)).map(Some)
            }
            (None, None) => unreachable!("places are assumed where there are no clean images"),
            (None, Some(_)) if self.dataset.is_some() => {
                writeln!(
                    out,
                    "the file has no `ids`: its clean images and labels cannot be checked"
                )?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The images at these places of the test split, or all of it.
    fn official_at(&self, name: &str, ids: Option<&[u64]>) -> Result<Official> {
        let root = datasets::root(self.data_dir).map_err(|error| Stop::usage(error.to_string()))?;
        let data = Data::load_test(name, None, self.verify, &root)?;
        let split = &data.dataset.test;
        let index = |&id: &u64| usize::try_from(id).ok().filter(|id| *id < split.len());
        let indices: Option<Vec<usize>> = match ids {
            Some(ids) => ids.iter().map(index).collect(),
            None => Some((0..split.len()).collect()),
        };
        let indices = indices.ok_or_else(|| {
            Stop::usage(format!(
                "the file has ids beyond the {} test images of {name}",
                split.len()
            ))
        })?;
        let batch = plain_batch(split, &indices, &Device::Cpu)?;
        Ok(Official {
            images: batch.images,
            labels: batch.labels.to_vec1()?,
        })
    }
}

fn check_shape(entry: &datasets::Entry, adversarial: &Tensor) -> Result<()> {
    let shape = &adversarial.dims()[1..];
    if shape == entry.image {
        return Ok(());
    }
    Err(Stop::usage(format!(
        "the file's images are {shape:?}, those of {} {:?}; choose another --dataset",
        entry.name, entry.image
    )))
}

fn check_official(
    official: &Official,
    clean: &Tensor,
    labels: &[u32],
    name: &str,
    broken: &mut Vec<String>,
) -> Result<()> {
    let others = rows(clean)?
        .iter()
        .zip(rows(&official.images)?)
        .filter(|(a, b)| largest(a, b) > SLACK || !finite(a))
        .count();
    if others > 0 {
        broken.push(format!("{others} clean images are not those of {name}"));
    }
    let others = official.labels.iter().zip(labels).filter(|(a, b)| a != b).count();
    if others > 0 {
        broken.push(format!("{others} labels are not those of {name}"));
    }
    Ok(())
}

/// Checks every perturbation. Returns the largest.
fn check_perturbations(clean: &Tensor, adversarial: &Tensor, threat: &Threat, broken: &mut Vec<String>) -> Result<f64> {
    let (clean, adversarial) = (rows(clean)?, rows(adversarial)?);
    let mut farthest = 0.0f64;
    let (mut outside, mut far, mut unreal) = (0, 0, 0);
    for (before, after) in clean.iter().zip(&adversarial) {
        if !finite(after) || !finite(before) {
            unreal += 1;
            continue;
        }
        let leaves = |pixel: &f32| !(-SLACK..=1.0 + SLACK).contains(&f64::from(*pixel));
        outside += usize::from(after.iter().any(leaves) || before.iter().any(leaves));
        let distance = match threat.norm {
            Norm::Linf => largest(before, after),
            Norm::L2 => changes(before, after).map(|change| change * change).sum::<f64>().sqrt(),
        };
        farthest = farthest.max(distance);
        far += usize::from(distance > threat.epsilon.value() + SLACK);
    }
    let n = adversarial.len();
    let beyond = format!("exceed {} ≤ {} by more than 1e-6", threat.norm, threat.epsilon);
    for (count, what) in [
        (unreal, "hold NaN or infinity"),
        (outside, "leave [0, 1] by more than 1e-6"),
        (far, &beyond),
    ] {
        if count > 0 {
            broken.push(format!("{count} of {n} images {what}"));
        }
    }
    Ok(farthest)
}

/// Classifies the images and compares the count with the one recorded in the file.
fn count(
    network: &External,
    clean: &Tensor,
    examples: &Examples,
    broken: &mut Vec<String>,
    out: &mut dyn Write,
) -> Result<()> {
    let n = examples.labels.len();
    let Some((natural, correct)) = recount(network, clean, examples)? else {
        broken.push("the network's logits are not finite".into());
        return Ok(());
    };
    let interval = results::wilson(correct, n as u64).expect("at least one image");
    writeln!(out, "correct before: {natural} of {n}")?;
    writeln!(
        out,
        "still correct: {correct} of {n} = {:.2} %, 95 % interval {:.2} to {:.2}",
        100.0 * correct as f64 / n as f64,
        100.0 * interval.low,
        100.0 * interval.high,
    )?;
    match &examples.about {
        Some(about) if about.checkpoint != network.digest => writeln!(
            out,
            "the file was made on another checkpoint ({}…), where {} were still correct",
            about.checkpoint.chars().take(12).collect::<String>(),
            about.correct
        )?,
        Some(about) if about.correct != correct => broken.push(format!(
            "the file records {} still correct, this checkpoint gives {correct}",
            about.correct
        )),
        Some(_) => writeln!(out, "the file's own count is the same")?,
        None => {}
    }
    Ok(())
}

/// Reads the examples just written and counts again. Fails, and removes the file, if that gives another count.
pub(crate) fn check_saved(file: &Path, network: &External, correct: u64) -> Result<()> {
    let again = Examples::read(file)?;
    let clean = again.clean.as_ref().expect("written with its clean images");
    let counted = match recount(network, clean, &again)? {
        Some((_, counted)) if counted == correct => return Ok(()),
        Some((_, counted)) => format!("{counted} still correct"),
        None => "logits that are not finite".into(),
    };
    std::fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
    let message = format!(
        "{} was read again and gives {counted}, not {correct}; it was removed",
        file.display()
    );
    Err(Failure::Integrity(message).into_stop())
}

fn rows(images: &Tensor) -> Result<Vec<Vec<f32>>> {
    Ok(images.to_dtype(DType::F32)?.flatten_from(1)?.to_vec2()?)
}

fn finite(values: &[f32]) -> bool {
    values.iter().all(|value| value.is_finite())
}

fn changes<'a>(before: &'a [f32], after: &'a [f32]) -> impl Iterator<Item = f64> + 'a {
    before
        .iter()
        .zip(after)
        .map(|(a, b)| (f64::from(*b) - f64::from(*a)).abs())
}

fn largest(before: &[f32], after: &[f32]) -> f64 {
    changes(before, after).fold(0.0, f64::max)
}
