use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use attacks::Norm;
use candle_core::{DType, Device, Tensor};
use clap::Args;
use datasets::Split;
use models::Classifier;
use plan::Methods;
use plan::matrix::{DatasetEntry, Limit};

use crate::cli::DataArgs;
use crate::data::{Data, plain_batch};
use crate::evaluation::{SLACK, predictions};
use crate::examples::Examples;
use crate::exit::{Exit, Stop};
use crate::external::{self, NetworkArgs};
use crate::failure::Failure;

/// Examples evaluated together. Results do not depend on it.
const BATCH: usize = 100;

/// Which examples, and on which network.
#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyArgs {
    /// The examples: safetensors, or what `torch.save` makes of a dictionary, with `adversarial` (or
    /// `x_adv`), `labels` (or `y`), and `clean` (or `x`) or `ids`.
    pub(crate) examples: PathBuf,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// The data set they were made of. Its images and labels are compared with the file's by `ids`, if it has them.
    /// Unless given: the file's own word, and then only for the number of classes if `clean` is there.
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: Option<String>,
    /// The threat model, such as `linf:8/255`. Unless given: the file's own.
    #[arg(long, value_name = "NORM:RADIUS")]
    pub(crate) threat: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Accept data whose checksums are not the official ones.
    #[arg(long)]
    pub(crate) no_verify: bool,
}

/// Evaluates saved adversarial images again, and checks every rule they must keep.
pub(crate) fn main(args: &VerifyArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    let examples = Examples::read(&args.examples)?;
    let about = examples.about.as_ref();
    let threat = match (&args.threat, about) {
        (Some(text), _) => external::threat(text)?,
        (None, Some(about)) => {
            about
                .threat
                .check()
                .map_err(|invalid| Stop::usage(format!("the file's threat model: {}", invalid.message)))?;
            about.threat
        }
        (None, None) => {
            return Err(Stop::usage(
                "the file names no threat model; give it with --threat linf:8/255",
            ));
        }
    };
    let name = args.dataset.as_ref().or(about.map(|it| &it.dataset));
    let name = name.ok_or_else(|| Stop::usage("the file names no data set; give it with --dataset"))?;
    let entry = datasets::entry(name).map_err(|error| Stop::usage(error.to_string()))?;
    let shape = examples.adversarial.dims();
    if shape[1..] != entry.image {
        let (file, data) = (&shape[1..], entry.image);
        return Err(Stop::usage(format!(
            "the file's images are {file:?}, those of {name} {data:?}; choose another --dataset"
        )));
    }
    let network = args.network.load(&methods.networks, entry.image, entry.classes.len())?;
    for remark in &network.remarks {
        eprintln!("{}: {remark}", args.network.checkpoint.display());
    }

    let mut broken = Vec::new();
    let wrong = examples
        .labels
        .iter()
        .filter(|label| **label as usize >= entry.classes.len())
        .count();
    if wrong > 0 {
        broken.push(format!("{wrong} labels are no class of {name}"));
    }
    let official = match (&examples.ids, &examples.clean) {
        (Some(ids), clean) if args.dataset.is_some() || clean.is_none() => Some(official(args, name, ids)?),
        (None, None) => {
            return Err(Stop::usage(
                "the file has neither `clean` images nor `ids`, so nobody knows what was perturbed",
            ));
        }
        (None, Some(_)) if args.dataset.is_some() => {
            writeln!(
                out,
                "the file has no `ids`: its clean images and labels are taken at its word"
            )?;
            None
        }
        _ => None,
    };
    if let (Some((images, labels)), Some(clean)) = (&official, &examples.clean) {
        let apart = rows(clean)?
            .iter()
            .zip(rows(images)?)
            .filter(|(a, b)| largest(a, b) > SLACK || !finite(a))
            .count();
        if apart > 0 {
            broken.push(format!("{apart} clean images are not those of {name}"));
        }
        let apart = labels.iter().zip(&examples.labels).filter(|(a, b)| a != b).count();
        if apart > 0 {
            broken.push(format!("{apart} labels are not those of {name}"));
        }
    }
    let clean = match (&examples.clean, &official) {
        (Some(clean), _) => clean,
        (None, Some((images, _))) => images,
        (None, None) => unreachable!("one of the two was read"),
    };
    let (clean_rows, adversarial) = (rows(clean)?, rows(&examples.adversarial)?);
    let mut farthest = 0.0f64;
    let (mut outside, mut far, mut unreal) = (0, 0, 0);
    for (before, after) in clean_rows.iter().zip(&adversarial) {
        if !finite(after) || !finite(before) {
            unreal += 1;
            continue;
        }
        let cut = |pixels: &[f32]| {
            pixels
                .iter()
                .any(|&pixel| !(-SLACK..=1.0 + SLACK).contains(&f64::from(pixel)))
        };
        outside += usize::from(cut(after) || cut(before));
        let distance = match threat.norm {
            Norm::Linf => largest(before, after),
            Norm::L2 => changes(before, after).map(|it| it * it).sum::<f64>().sqrt(),
        };
        farthest = farthest.max(distance);
        far += usize::from(distance > threat.epsilon.value() + SLACK);
    }
    let n = adversarial.len();
    for (count, what) in [
        (unreal, "hold NaN or infinity".to_string()),
        (outside, "leave [0, 1] by more than 1e-6".to_string()),
        (
            far,
            format!(
                "are further than {} ≤ {} by more than 1e-6",
                threat.norm, threat.epsilon
            ),
        ),
    ] {
        if count > 0 {
            broken.push(format!("{count} of {n} images {what}"));
        }
    }
    writeln!(out, "examples: {n} from {}", args.examples.display())?;
    writeln!(
        out,
        "largest perturbation: {farthest:.7} ({} ≤ {})",
        threat.norm, threat.epsilon
    )?;
    match judge(&network, clean, &examples)? {
        None => broken.push("the network's logits are not finite".into()),
        Some((natural, correct)) => {
            let interval = results::wilson(correct, n as u64).expect("at least one image");
            writeln!(out, "correct before: {natural} of {n}")?;
            writeln!(
                out,
                "still correct: {correct} of {n} = {:.2} %, 95 % interval {:.2} to {:.2}",
                100.0 * correct as f64 / n as f64,
                100.0 * interval.low,
                100.0 * interval.high,
            )?;
            match about {
                Some(about) if about.checkpoint != network.digest => writeln!(
                    out,
                    "the file was made on another checkpoint ({}…), where {} were still correct",
                    about.checkpoint.chars().take(12).collect::<String>(),
                    about.correct
                )?,
                Some(about) if about.correct != correct => {
                    broken.push(format!(
                        "the file claims {} still correct, this checkpoint gives {correct}",
                        about.correct
                    ));
                }
                Some(_) => writeln!(out, "the file's own count is the same")?,
                None => {}
            }
        }
    }
    for rule in &broken {
        writeln!(out, "broken: {rule}")?;
    }
    match broken.is_empty() {
        true => writeln!(out, "every rule is kept")?,
        false => {
            return Err(Stop {
                exit: Exit::Integrity,
                message: format!("integrity: {}: {}", args.examples.display(), broken.join("; ")),
            }
            .into());
        }
    }
    Ok(Exit::Success)
}

/// The data set's own images and labels at the file's ids.
fn official(args: &VerifyArgs, name: &str, ids: &[u64]) -> Result<(Tensor, Vec<u32>)> {
    let entry = DatasetEntry {
        name: name.to_string(),
        validation: 0,
        labeled: None,
        extra: None,
        limit: Limit::default(),
        verify: !args.no_verify,
    };
    let root = datasets::root(args.data.data_dir.as_deref()).map_err(|error| Stop::usage(error.to_string()))?;
    let data = Data::load(&entry, &root)?;
    let split: &Split = &data.dataset.test;
    let index = |&id: &u64| usize::try_from(id).ok().filter(|id| *id < split.len());
    let indices: Option<Vec<usize>> = ids.iter().map(index).collect();
    let indices = indices.ok_or_else(|| {
        Stop::usage(format!(
            "the file has ids beyond the {} test images of {name}",
            split.len()
        ))
    })?;
    let batch = plain_batch(split, &indices, &Device::Cpu)?;
    Ok((batch.images, batch.labels.to_vec1()?))
}

/// How many images are classified correctly, clean and attacked. `None`: a logit is not finite.
pub(super) fn judge(network: &dyn Classifier, clean: &Tensor, examples: &Examples) -> Result<Option<(u64, u64)>> {
    // As attacks and evaluations see it.
    let frozen = network.freeze()?;
    let network = frozen.as_deref().unwrap_or(network);
    let mut counts = [0, 0];
    for start in (0..examples.labels.len()).step_by(BATCH) {
        let length = BATCH.min(examples.labels.len() - start);
        let labels = &examples.labels[start..start + length];
        for (count, images) in counts.iter_mut().zip([clean, &examples.adversarial]) {
            let images = images.narrow(0, start, length)?.contiguous()?;
            let predicted = match predictions(network, &images) {
                Err(Failure::Integrity(_)) => return Ok(None),
                predicted => predicted?,
            };
            *count += predicted.iter().zip(labels).filter(|(a, b)| a == b).count() as u64;
        }
    }
    Ok(Some((counts[0], counts[1])))
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
