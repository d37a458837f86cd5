//! Where tensors live.

use anyhow::Result;
use candle_core::Device;

use crate::exit::Stop;

/// The device of a `--device` argument, and its name in the table of timings.
pub(crate) fn parse(text: &str) -> Result<(Device, String)> {
    match text {
        "cpu" => Ok((Device::Cpu, "cpu".into())),
        "auto" => {
            eprintln!("--device auto: this build has no CUDA; using the CPU");
            Ok((Device::Cpu, "cpu".into()))
        }
        other if other.starts_with("cuda") => Err(Stop::usage(format!(
            "--device {other}: this build has no CUDA; use `--device cpu`",
        ))),
        other => Err(Stop::usage(format!(
            "--device {other}: there is no such device; known: cpu, auto"
        ))),
    }
}
