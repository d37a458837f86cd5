//! Where tensors live.

use anyhow::Result;
use candle_core::Device;
use kernels::device::{self, Precision, Settings};

use crate::exit::Stop;
use crate::stderr::say;

/// The device of a `--device` argument, and its name in the table of timings.
pub(crate) fn parse(text: &str) -> Result<(Device, String)> {
    match text {
        "cpu" => Ok((Device::Cpu, "cpu".into())),
        "auto" => match device::open(0) {
            Ok(device) => named(device, 0),
            Err(reason) => {
                say(format_args!("--device auto: {}; using the CPU", without_trace(&reason)));
                Ok((Device::Cpu, "cpu".into()))
            }
        },
        other => {
            let Some(ordinal) = ordinal(other) else {
                return Err(Stop::usage(format!(
                    "--device {other}: there is no such device; known: auto, cpu, cuda, cuda:N"
                )));
            };
            match device::open(ordinal) {
                Ok(device) => named(device, ordinal),
                Err(reason) => Err(Stop::usage(format!(
                    "--device {other}: {}; `--device cpu` works everywhere",
                    without_trace(&reason)
                ))),
            }
        }
    }
}

/// Sets how GPUs compute, for the whole process.
pub(crate) fn configure(precision: Precision, deterministic: bool) {
    device::configure(Settings {
        precision,
        deterministic,
        ..Settings::default()
    });
}

/// More threads than any machine has processors for would only make it unreachable.
pub(crate) const MOST_THREADS: usize = 1024;

/// Sets how many threads this process has, for its whole life; unless given, one per core.
pub(crate) fn set_threads(threads: Option<usize>) -> Result<()> {
    if let Some(threads) = threads {
        if !(1..=MOST_THREADS).contains(&threads) {
            return Err(Stop::usage(format!("--threads must be from 1 to {MOST_THREADS}")));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        pool.map_err(|error| Stop::usage(format!("--threads {threads}: {error}")))?;
    }
    Ok(())
}

/// The N of `cuda:N`; `cuda` is `cuda:0`.
fn ordinal(text: &str) -> Option<usize> {
    match text.strip_prefix("cuda")? {
        "" => Some(0),
        rest => rest.strip_prefix(':')?.parse().ok(),
    }
}

fn named(device: Device, ordinal: usize) -> Result<(Device, String)> {
    let settings = device::settings();
    let card = device::gpu(&device)?.map_or_else(String::new, |gpu| format!(" {}", gpu.name));
    let repeatable = if settings.deterministic { " deterministic" } else { "" };
    Ok((
        device,
        format!("cuda:{ordinal}{card} {}{repeatable}", settings.precision),
    ))
}

/// The message alone: a backtrace tells a user nothing.
fn without_trace(error: &candle_core::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_by_name() {
        assert_eq!(ordinal("cuda"), Some(0));
        assert_eq!(ordinal("cuda:3"), Some(3));
        for wrong in ["cuda:", "cuda3", "cuda:-1", "gpu", "cuda:x"] {
            assert_eq!(ordinal(wrong), None, "{wrong}");
        }
        assert!(parse("cpu").unwrap().0.is_cpu());
        let message = parse("gpu").unwrap_err().to_string();
        assert!(message.contains("known: auto, cpu, cuda, cuda:N"), "{message}");
    }

    #[test]
    fn where_there_is_no_gpu_auto_takes_the_cpu_and_cuda_says_why() {
        if device::open(0).is_err() {
            assert!(parse("auto").unwrap().0.is_cpu());
            let message = parse("cuda:0").unwrap_err().to_string();
            assert!(message.contains("--device cpu"), "{message}");
        }
    }
}
