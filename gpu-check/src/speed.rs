//! Measures speed, and its share of the card's matrix rate. The comparison with PyTorch is `benches/peers/compare.sh`.

use std::time::Instant;

use anyhow::{Context as _, Result};
use attacks::{Attack, Norm, Pgd, Pixels, Start, Threat};
use candle_core::{DType, Tensor};
use kernels::device::{self, Settings};
use random::Stream;

use crate::context::Context;
use crate::networks::{batch, network};
use crate::repeat::Training;
use crate::report::{Found, Report};

/// Seconds of one call, the best of several bursts, everything done.
fn seconds(context: &Context, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    for _ in 0..2 {
        work()?;
    }
    context.device.synchronize()?;
    let (mut best, begun) = (f64::INFINITY, Instant::now());
    while begun.elapsed().as_secs_f64() < 2.0 {
        const CALLS: u32 = 3;
        let start = Instant::now();
        for _ in 0..CALLS {
            work()?;
        }
        context.device.synchronize()?;
        best = best.min(start.elapsed().as_secs_f64() / f64::from(CALLS));
    }
    Ok(best)
}

/// Images per second of PGD-10 by `perturb`, counted by attack steps.
fn attack_rate(context: &Context, name: &str, examples: usize) -> Result<f64> {
    const STEPS: u64 = 10;
    let (network, batch) = (network(name, &context.device)?, batch(name, examples, &context.device)?);
    let pgd = Pgd {
        steps: Some(STEPS),
        step_size: Some(Pixels::new(2, 255)),
        start: Start::Uniform,
        ..Pgd::default()
    };
    let threat = Threat {
        norm: Norm::Linf,
        epsilon: Pixels::new(8, 255),
    };
    let each = seconds(context, || {
        pgd.perturb(&network, &batch, &threat, &Stream::new(1))?;
        Ok(())
    })?;
    Ok(examples as f64 * STEPS as f64 / each)
}

pub(crate) fn check(context: &Context, report: &mut Report) {
    if context.device.is_cpu() {
        report.add("speed", "everything", || {
            Ok(Found::Nothing("the CPU has its own benches".into()))
        });
        return;
    }
    let mut matrix = 0.0;
    report.add("speed", "matrix product 8192³ in bf16", || {
        let a = Tensor::ones((8192, 8192), DType::BF16, &context.device)?;
        let each = seconds(context, || {
            a.matmul(&a)?;
            Ok(())
        })?;
        matrix = 2.0 * 8192f64.powi(3) / each / 1e12;
        Ok(Found::Figure(matrix, "TFLOP/s"))
    });
    let names = ["small-cnn", "resnet18", "wrn-34-10"];
    for name in &names[..if context.quick { 1 } else { names.len() }] {
        network_speed(context, report, name, 128, matrix);
    }
    report.add("speed", "memory in use at the end", || {
        let gpu = device::gpu(&context.device)?.context("no GPU")?;
        Ok(Found::Figure(
            (gpu.memory.1 - gpu.memory.0) as f64 / f64::from(1 << 30),
            "GiB",
        ))
    });
}

/// Attack and training steps of one network. `matrix`: the card's rate of matrix products in TFLOP/s.
fn network_speed(context: &Context, report: &mut Report, name: &str, examples: usize, matrix: f64) {
    for &(precision, shown) in context.precisions() {
        for (graphs, channels_last) in [(true, true), (true, false), (false, true)] {
            // The effect of graphs and channel order is measured on one network.
            if name != "resnet18" && !(graphs && channels_last) {
                continue;
            }
            let how = match (graphs, channels_last) {
                (false, _) => ", no graph",
                (true, false) => ", channels first",
                (true, true) => "",
            };
            let set = || {
                device::configure(Settings {
                    precision,
                    deterministic: false,
                    graphs,
                    channels_last,
                });
            };
            let mut rate = 0.0;
            report.add(
                "speed",
                format!("{name} {shown} attack step at {examples}{how}"),
                || {
                    set();
                    rate = attack_rate(context, name, examples)?;
                    Ok(Found::Figure(rate, "images/s"))
                },
            );
            if graphs && channels_last && rate > 0.0 && matrix > 0.0 {
                report.add(
                    "speed",
                    format!("{name} {shown} attack step, share of the bf16 matrix rate"),
                    || {
                        let network = network(name, &context.device)?;
                        // Forward pass and gradient to the images: two multiplications and additions each.
                        let operations = 4.0 * network.multiplications()? as f64;
                        Ok(Found::Figure(100.0 * rate * operations / 1e12 / matrix, "%"))
                    },
                );
            }
            // MART's step contains the graph of its attack steps; a training step has no graph, only an order of channels.
            let steps: &[(&str, &str)] = match (graphs, channels_last) {
                (false, _) => &[],
                (true, false) => &[("natural", "training step")],
                (true, true) => &[("natural", "training step"), ("mart", "whole MART step, PGD-10")],
            };
            for &(defense, what) in steps {
                if name == "wrn-34-10" && defense == "mart" {
                    continue;
                }
                report.add("speed", format!("{name} {shown} {what} at {examples}{how}"), || {
                    set();
                    let mut training = Training::new(name, defense, 10, examples, &context.device)?;
                    let each = seconds(context, || training.step())?;
                    Ok(Found::Figure(examples as f64 / each, "images/s"))
                });
            }
        }
    }
}
