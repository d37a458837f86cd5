//! How exactly a GPU computes.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// How convolutions on a GPU multiply. Everything else is computed in f32, sums in f64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// Products of numbers rounded to 10 bits of mantissa, sums in f32: PyTorch's default.
    #[default]
    Tf32,
    /// f32 throughout.
    F32,
    /// Images, weights and gradients of convolutions rounded to bfloat16, sums in f32. Parameters stay f32.
    Bf16,
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "tf32" => Ok(Self::Tf32),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(format!("there is no precision `{other}`; known: tf32, f32, bf16")),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tf32 => "tf32",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// Settings for every GPU of this process. The CPU has only one way to compute, which is exact and repeatable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How convolutions multiply.
    pub precision: Precision,
    /// Whether the same work on the same card gives the same bits. Otherwise convolutions take the
    /// algorithm that was fastest when they first ran.
    pub deterministic: bool,
    /// Whether an attack step of a frozen network is captured once and replayed as a CUDA graph.
    pub graphs: bool,
    /// Whether frozen networks keep channels last.
    pub channels_last: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            precision: Precision::Tf32,
            deterministic: false,
            graphs: true,
            channels_last: true,
        }
    }
}

static PRECISION: AtomicU8 = AtomicU8::new(0);
static DETERMINISTIC: AtomicBool = AtomicBool::new(false);
static GRAPHS: AtomicBool = AtomicBool::new(true);
static CHANNELS_LAST: AtomicBool = AtomicBool::new(true);

/// Sets how GPUs compute from now on. Networks that are already frozen keep their settings.
pub fn configure(settings: Settings) {
    let precision = match settings.precision {
        Precision::Tf32 => 0,
        Precision::F32 => 1,
        Precision::Bf16 => 2,
    };
    PRECISION.store(precision, Ordering::Relaxed);
    DETERMINISTIC.store(settings.deterministic, Ordering::Relaxed);
    GRAPHS.store(settings.graphs, Ordering::Relaxed);
    CHANNELS_LAST.store(settings.channels_last, Ordering::Relaxed);
}

/// How GPUs compute.
pub fn settings() -> Settings {
    Settings {
        precision: match PRECISION.load(Ordering::Relaxed) {
            0 => Precision::Tf32,
            1 => Precision::F32,
            _ => Precision::Bf16,
        },
        deterministic: DETERMINISTIC.load(Ordering::Relaxed),
        graphs: GRAPHS.load(Ordering::Relaxed),
        channels_last: CHANNELS_LAST.load(Ordering::Relaxed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precisions_are_read_as_they_are_written() {
        for precision in [Precision::Tf32, Precision::F32, Precision::Bf16] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert!("f64".parse::<Precision>().unwrap_err().contains("known: tf32"));
    }
}
