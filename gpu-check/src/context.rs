//! What every check needs.

use std::path::PathBuf;

use candle_core::Device;
use kernels::device::{self, Precision, Settings};

/// What every check needs.
pub(crate) struct Context {
    pub(crate) device: Device,
    pub(crate) reference: PathBuf,
    pub(crate) quick: bool,
}

impl Context {
    /// The precisions to check, with their names.
    pub(crate) fn precisions(&self) -> &'static [(Precision, &'static str)] {
        const ALL: &[(Precision, &str)] = &[
            (Precision::F32, "f32"),
            (Precision::Tf32, "tf32"),
            (Precision::Bf16, "bf16"),
        ];
        if self.device.is_cpu() { &ALL[..1] } else { ALL }
    }
}

/// Sets the precision; results are repeatable.
pub(crate) fn precise(precision: Precision) {
    device::configure(Settings {
        precision,
        deterministic: true,
        ..Settings::default()
    });
}
