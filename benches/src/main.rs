//! Our side of a comparison: `rampart-worker WORKLOAD NETWORK BATCH DEVICE PRECISION`, or
//! `rampart-worker evaluate CHECKPOINT NETWORK EXAMPLES THREAT` for attacks on a network out of a file.
//!
//! Writes lines of JSON to stdout. The first is `ready`; then it answers every line on stdin with one:
//!
//! - `check`: the logits of the batch, flat, with the current parameters
//! - `run SECONDS`: whole steps for at least that long, and one at least
//!
//! An evaluation is asked about the examples at places FIRST up to, but not with, LAST of the file:
//!
//! - `check FIRST LAST`: the logits of the clean images, flat
//! - `auto-attack|tenth|pgd|cw FIRST LAST SEED`: their outcomes; `tenth` is AutoAttack, shortened
//!
//! It ends with its input.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use benches::{Bench, Burst, Evaluation, Length, Subject, memory};
use candle_core::{DType, Device};
use kernels::device::{self, Precision, Settings};
use serde::Serialize;
use serde_json::json;

fn main() -> ExitCode {
    kernels::keep_candle_on_one_thread();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match serve(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The answer to `run`. Memory in MiB.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    burst: Burst,
    peak_mib: Option<f64>,
    high_water_mib: Option<f64>,
    resident_before_mib: Option<f64>,
}

fn serve(arguments: &[String]) -> Result<()> {
    if let [evaluate, checkpoint, network, examples, threat] = arguments
        && evaluate == "evaluate"
    {
        let evaluation = Evaluation::open(Path::new(checkpoint), network, Path::new(examples), threat)?;
        return serve_evaluation(&evaluation);
    }
    let [workload, network, batch, device, precision] = arguments else {
        bail!(
            "usage: rampart-worker WORKLOAD NETWORK BATCH DEVICE PRECISION\n\
             or: rampart-worker evaluate CHECKPOINT NETWORK EXAMPLES THREAT"
        );
    };
    let workload = workload.parse()?;
    let subject = Subject::named(network)?;
    let batch: usize = batch
        .parse()
        .with_context(|| format!("a batch is a number, not `{batch}`"))?;
    let device = parse_device(device)?;
    set_precision(precision, &device)?;

    let threads = rayon::current_num_threads();
    let before = memory::resident();
    let mut bench = Bench::new(workload, &subject, batch, &device)?;
    memory::forget_peak();
    answer(&json!({
        "ready": true,
        "program": concat!("Rampart ", env!("CARGO_PKG_VERSION")),
        "threads": threads,
        "parameters": bench.parameters(),
        "resident_mib": before,
    }))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["check"] => {
                let logits = bench.logits()?.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
                answer(&json!({ "logits": logits }))?;
            }
            ["run", seconds] => {
                let seconds: f64 = seconds.parse().with_context(|| format!("`{seconds}` is not a time"))?;
                let burst = bench.run(seconds)?;
                let high_water = memory::high_water();
                answer(&Answer {
                    burst,
                    peak_mib: high_water.zip(before).map(|(most, before)| most - before),
                    high_water_mib: high_water,
                    resident_before_mib: before,
                })?;
            }
            _ => bail!("`{line}` is not understood; known: check, run SECONDS"),
        }
    }
    Ok(())
}

fn serve_evaluation(evaluation: &Evaluation) -> Result<()> {
    answer(&json!({
        "ready": true,
        "program": concat!("Rampart ", env!("CARGO_PKG_VERSION")),
        "threads": rayon::current_num_threads(),
        "parameters": evaluation.parameters(),
        "ids": evaluation.ids(),
    }))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let place = |text: &str| -> Result<usize> { text.parse().with_context(|| format!("`{text}` is not a place")) };
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["check", first, last] => {
                let logits = evaluation.logits(place(first)?..place(last)?)?;
                answer(&json!({ "logits": logits.flatten_all()?.to_vec1::<f32>()? }))?;
            }
            [attack, first, last, seed] => {
                let rows = place(first)?..place(last)?;
                let seed = seed.parse().with_context(|| format!("`{seed}` is not a seed"))?;
                answer(&match attack {
                    "auto-attack" => evaluation.auto_attack(rows, seed, Length::Standard)?,
                    "tenth" => evaluation.auto_attack(rows, seed, Length::Tenth)?,
                    other => evaluation.ascent(other, rows, seed)?,
                })?;
            }
            _ => bail!("`{line}` is not understood; known: check FIRST LAST, auto-attack|tenth|pgd|cw FIRST LAST SEED"),
        }
    }
    Ok(())
}

fn parse_device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        _ => match name.strip_prefix("cuda:").and_then(|number| number.parse().ok()) {
            Some(ordinal) => device::open(ordinal).with_context(|| format!("device {name}")),
            None => bail!("no device is called `{name}`; known: cpu, cuda:N"),
        },
    }
}

/// The CPU multiplies in f32 alone.
fn set_precision(name: &str, device: &Device) -> Result<()> {
    let precision = match (name, device.is_cpu()) {
        ("fp32", _) => Precision::F32,
        ("tf32", false) => Precision::Tf32,
        ("bf16", false) => Precision::Bf16,
        (_, true) => bail!("no precision of this device is called `{name}`; known: fp32"),
        (_, false) => bail!("no precision of this device is called `{name}`; known: fp32, tf32, bf16"),
    };
    device::configure(Settings {
        precision,
        ..Settings::default()
    });
    Ok(())
}

fn answer(line: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}
