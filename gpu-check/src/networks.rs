//! Every network on the GPU against the CPU and the authors' numbers: trained and frozen, step by step and captured.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use attacks::{Attack, Batch, Loss, Norm, Pgd, Pixels, Start, Threat};
use candle_core::{DType, Device, Tensor, Var};
use kernels::device::{self, Precision, Settings};
use models::{Classifier, Mode, Network};
use random::Stream;
use reference::Case;

use crate::context::{Context, precise};
use crate::report::{Found, Report, deviation, differing, distance, doubles};

/// A network of random parameters, the same on every device.
pub(crate) fn network(name: &str, device: &Device) -> Result<Network> {
    Ok(models::build_on(device, name, image(name), 10, &Stream::new(7))?)
}

pub(crate) fn image(name: &str) -> [usize; 3] {
    match name {
        "tiny-cnn" => [1, 8, 8],
        "small-cnn" | "lenet5" => [1, 28, 28],
        _ => [3, 32, 32],
    }
}

/// Images and labels, the same on every device.
pub(crate) fn batch(name: &str, examples: usize, device: &Device) -> Result<Batch> {
    let [c, h, w] = image(name);
    let ids: Vec<u64> = (0..examples as u64).collect();
    let pixels = Stream::new(8).uniform(&ids, c * h * w);
    let labels: Vec<u32> = ids.iter().map(|id| (id * 3 % 10) as u32).collect();
    Ok(Batch {
        images: Tensor::from_vec(pixels, (examples, c, h, w), &Device::Cpu)?.to_device(device)?,
        labels: Tensor::new(labels, device)?,
        ids,
    })
}

/// Logits, and the gradient of the summed cross entropy to the images.
fn pass(classifier: &dyn Classifier, batch: &Batch, mode: Mode<'_>) -> Result<(Tensor, Tensor)> {
    let images = Var::from_tensor(&batch.images)?;
    let logits = classifier.logits(&images, mode)?;
    let gradient = kernels::cross_entropy(&logits, &batch.labels)?.sum_all()?.backward()?;
    let gradient = gradient.get(&images).context("the images have no gradient")?.clone();
    Ok((logits.detach(), gradient))
}

/// The largest deviation of logits, and the mean deviation of gradients.
fn allowed(precision: Precision) -> [f64; 2] {
    match precision {
        // Gradients: a ReLU that flips in rounding, one among thousands.
        Precision::F32 => [1e-4, 1e-2],
        Precision::Tf32 => [2e-2, 0.15],
        Precision::Bf16 => [0.1, 0.5],
    }
}

pub(crate) fn check(context: &Context, report: &mut Report) {
    let names = [
        "tiny-cnn",
        "small-cnn",
        "lenet5",
        "resnet18",
        "wrn-10-2",
        "mma-wrn-10-2",
    ];
    let names = &names[..if context.quick { 2 } else { names.len() }];
    for &(precision, shown) in context.precisions() {
        let [for_logits, for_gradients] = allowed(precision);
        for name in names {
            let mut against_cpu = |what: &str, frozen: bool, mode: Mode<'static>| {
                report.add("networks", format!("{name} {shown}, {what}"), || {
                    precise(precision);
                    let on = |device: &Device| -> Result<(Tensor, Tensor)> {
                        let (network, batch) = (network(name, device)?, batch(name, 8, device)?);
                        if frozen {
                            pass(network.freeze()?.context("no frozen form")?.as_ref(), &batch, mode)
                        } else {
                            pass(&network, &batch, mode)
                        }
                    };
                    let (ours, theirs) = (on(&context.device)?, on(&Device::Cpu)?);
                    let logits = deviation(&ours.0, &theirs.0)? / for_logits;
                    let gradients = distance(&ours.1, &theirs.1)? / for_gradients;
                    // The worse of the two, in shares of what each may be.
                    let is = if logits <= gradients { gradients } else { logits };
                    Ok(Found::Deviation { is, allowed: 1.0 })
                });
            };
            against_cpu("evaluation", false, Mode::Eval);
            against_cpu("batch statistics", false, Mode::BatchStatistics);
            against_cpu("frozen", true, Mode::Eval);
            for channels_last in [true, false] {
                let order = if channels_last { "last" } else { "first" };
                report.add("networks", format!("{name} {shown}, trained, channels {order}"), || {
                    trained(context, name, precision, channels_last)
                });
            }
        }
    }
    for name in names {
        ascents(context, report, name);
    }
    vectors(context, report);
}

/// A training pass with dropout: parameters' gradients in the mean and running statistics against the CPU's.
fn trained(context: &Context, name: &str, precision: Precision, channels_last: bool) -> Result<Found> {
    device::configure(Settings {
        precision,
        deterministic: true,
        channels_last,
        ..Settings::default()
    });
    let random = Stream::new(11);
    let on = |device: &Device| -> Result<[Tensor; 2]> {
        let (network, batch) = (network(name, device)?, batch(name, 16, device)?);
        let dropout = models::Dropout {
            random: &random,
            ids: &batch.ids,
        };
        let logits = network.logits(&batch.images, Mode::Train(Some(dropout)))?;
        let gradients = kernels::cross_entropy(&logits, &batch.labels)?.sum_all()?.backward()?;
        let mut parts = Vec::new();
        for parameter in network.parameters() {
            let gradient = gradients.get(&parameter.var).context("a parameter has no gradient")?;
            parts.push(gradient.to_device(&Device::Cpu)?.flatten_all()?);
        }
        let mut statistics = vec![Tensor::zeros(1, DType::F32, &Device::Cpu)?];
        for (key, tensor) in network.state()? {
            if key.contains("running_") {
                statistics.push(tensor.to_device(&Device::Cpu)?.flatten_all()?);
            }
        }
        Ok([Tensor::cat(&parts, 0)?, Tensor::cat(&statistics, 0)?])
    };
    let ([gradients, statistics], [gradients_there, statistics_there]) = (on(&context.device)?, on(&Device::Cpu)?);
    let [for_statistics, for_gradients] = allowed(precision);
    let gradients = distance(&gradients, &gradients_there)? / for_gradients;
    let statistics = deviation(&statistics, &statistics_there)? / for_statistics;
    // The worse of the two, in shares of what each may be.
    let is = if gradients <= statistics { statistics } else { gradients };
    Ok(Found::Deviation { is, allowed: 1.0 })
}

/// PGD in one call: all four combinations of graph and channel order must agree, also with the CPU up to flipped signs.
fn ascents(context: &Context, report: &mut Report, name: &str) {
    let pgd = |loss| Pgd {
        steps: Some(5),
        step_size: Some(Pixels::new(2, 255)),
        start: Start::Uniform,
        loss,
        ..Pgd::default()
    };
    let threat = Threat {
        norm: Norm::Linf,
        epsilon: Pixels::new(8, 255),
    };
    let attack = |device: &Device, loss: Loss, graphs: bool, channels_last: bool| -> Result<Tensor> {
        device::configure(Settings {
            precision: Precision::F32,
            deterministic: true,
            graphs,
            channels_last,
        });
        let (network, batch) = (network(name, device)?, batch(name, 8, device)?);
        Ok(pgd(loss).perturb(&network, &batch, &threat, &Stream::new(3))?.images)
    };
    for loss in [
        Loss::CrossEntropy,
        Loss::Kl,
        Loss::Margin,
        Loss::SoftMargin,
        Loss::Cw { kappa: 50.0 },
    ] {
        // Every loss once; nothing else depends on the network.
        if loss != Loss::CrossEntropy && name != "small-cnn" {
            continue;
        }
        report.add(
            "networks",
            format!("{name}, pgd-5 on {loss}: pixels unlike the CPU's"),
            || {
                let ours = attack(&context.device, loss, true, true)?;
                let theirs = attack(&Device::Cpu, loss, true, true)?;
                let (a, b) = (doubles(&ours)?, doubles(&theirs)?);
                let apart = a.iter().zip(&b).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
                // A gradient close to zero may have either sign, so a few percent of the pixels differ.
                Ok(Found::Deviation {
                    is: apart as f64 / a.len() as f64,
                    allowed: 0.05,
                })
            },
        );
    }
    report.add(
        "networks",
        format!("{name}, pgd-5 captured and recorded, bit by bit"),
        || {
            let before = kernels::ascent::replayed_steps();
            let captured = attack(&context.device, Loss::CrossEntropy, true, true)?;
            let replayed = kernels::ascent::replayed_steps() - before;
            let recorded = attack(&context.device, Loss::CrossEntropy, false, true)?;
            anyhow::ensure!(
                context.device.is_cpu() || name.starts_with("mma") || replayed > 0,
                "no step was replayed: the capture failed"
            );
            Ok(Found::Deviation {
                is: differing(&captured, &recorded)?,
                allowed: 0.0,
            })
        },
    );
}

/// The authors' numbers.
fn vectors(context: &Context, report: &mut Report) {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(context.reference.join("networks")) {
        Ok(files) => files.filter_map(|file| Some(file.ok()?.path())).collect(),
        Err(error) => {
            report.add("networks", "reference vectors", || {
                Ok(Found::Nothing(error.to_string()))
            });
            return;
        }
    };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let large = name.starts_with("wrn_28") || name.starts_with("wrn_34");
        if context.quick && !name.starts_with("smallcnn") || context.device.is_cpu() && large {
            continue;
        }
        for frozen in [false, true] {
            let what = if frozen { "frozen" } else { "as it is" };
            report.add("networks", format!("authors' {name} f32, {what}"), || {
                precise(Precision::F32);
                let case = Case::read(&file);
                let [c, h, w] = reference::networks::image(&case);
                let Some(built) = reference::networks::name(&case) else {
                    return Ok(Found::Nothing(format!("not built: {}", case.meta["arch"])));
                };
                let classes = reference::networks::classes(&case);
                let network = models::build_on(&context.device, &built, [c, h, w], classes, &Stream::new(0))?;
                network.load_state(&reference::networks::state(&case))?;
                let images = reference::networks::images(&case, DType::F32).to_device(&context.device)?;
                let logits = if frozen {
                    let frozen = network.freeze()?.context("no frozen form")?;
                    frozen.logits(&images, Mode::Eval)?
                } else {
                    network.logits(&images, Mode::Eval)?
                };
                // The vectors' tolerance for f32 is 5e-6; sums in another order double it, folding rounds once more.
                Ok(Found::Deviation {
                    is: deviation(&logits, &case.result("logits_eval"))?,
                    allowed: 5e-5,
                })
            });
        }
    }
}
