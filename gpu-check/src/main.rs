//! Compares a GPU with the CPU and with the reference vectors, looks for memory leaks and for results that cannot be
//! repeated bit by bit, and measures its speed, in minutes and with this program and the vectors alone.
//!
//! With `--device cpu` both sides are the CPU: a check of the checks that needs no GPU.

mod context;
mod report;

mod networks;

mod methods;
mod operations;
mod repeat;
mod speed;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use candle_core::Device;
use clap::Parser;
use kernels::device;

use context::Context;
use report::Report;

/// Compares a GPU with the CPU and the reference vectors, and times it.
#[derive(Debug, Parser)]
struct Args {
    /// The GPU: `cuda:N`; `cpu` checks the checks.
    #[arg(long, default_value = "cuda:0")]
    device: String,
    /// The reference vectors. Else RAMPART_REFERENCE_DIR, else `reference/vectors` where this was built.
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Also write everything to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Start no check after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0)]
    budget: f64,
    /// Only checks whose group or name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Small networks and few steps.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    kernels::keep_candle_on_one_thread();
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // Only the first line: the rest of a Candle error is a stack trace.
            let text = format!("{error:#}");
            eprintln!("error: {}", text.lines().next().unwrap_or_default());
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    let device = match args.device.as_str() {
        "cpu" => Device::Cpu,
        name => match name.strip_prefix("cuda:").and_then(|number| number.parse().ok()) {
            Some(ordinal) => device::open(ordinal)?,
            None => bail!("--device {name}: there is no such device; known: cpu, cuda:N"),
        },
    };
    let context = Context {
        device,
        reference: args.reference.clone().unwrap_or_else(reference::root),
        quick: args.quick,
    };
    let card = device::gpu(&context.device)?;
    let until = Instant::now() + Duration::from_secs_f64(args.budget);
    let mut report = Report::new(args.only.clone(), until);
    match &card {
        Some(card) => eprintln!("{card:?}"),
        None => eprintln!("no GPU: the CPU is compared with itself"),
    }
    operations::check(&context, &mut report);
    networks::check(&context, &mut report);
    methods::check(&context, &mut report);
    repeat::check(&context, &mut report);
    speed::check(&context, &mut report);
    report.print()?;
    if let Some(file) = &args.json {
        report.write(file, card.as_ref())?;
    }
    Ok(report.passed())
}
