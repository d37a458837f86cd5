//! Which of the processor's vector instructions are used.

use std::sync::OnceLock;

/// Vector instructions, each including those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instructions {
    /// What every processor of this kind has.
    Portable,
    /// AVX2 and fused multiply-add.
    Avx2,
    /// AVX-512 with its parts F, BW, VL and DQ.
    Avx512,
}

impl std::fmt::Display for Instructions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

/// The environment variable that limits the instructions.
const VARIABLE: &str = "RAMPART_INSTRUCTIONS";

/// The instructions that the kernels use: the best that this machine has, or less if the environment variable
/// `RAMPART_INSTRUCTIONS` is `portable`, `avx2` or `avx512`, to reproduce what another processor would compute.
///
/// # Panics
/// If the variable is anything else ([`check_instructions`]).
pub fn instructions() -> Instructions {
    static USED: OnceLock<Instructions> = OnceLock::new();
    *USED.get_or_init(|| limit().expect("the variable was checked").min(found()))
}

/// Fails if the environment variable that limits the instructions has an invalid value.
///
/// # Errors
/// The value of the variable and the valid ones.
pub fn check_instructions() -> Result<(), String> {
    limit().map(|_| ())
}

fn limit() -> Result<Instructions, String> {
    let Some(value) = std::env::var_os(VARIABLE) else {
        return Ok(Instructions::Avx512);
    };
    match value.to_str() {
        Some("avx512") => Ok(Instructions::Avx512),
        Some("avx2") => Ok(Instructions::Avx2),
        Some("portable") => Ok(Instructions::Portable),
        _ => Err(format!(
            "{VARIABLE} is `{}`; it can be `portable`, `avx2` or `avx512`",
            value.to_string_lossy()
        )),
    }
}

#[cfg(target_arch = "x86_64")]
fn found() -> Instructions {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq");
    match (avx2, avx512) {
        (true, true) => Instructions::Avx512,
        (true, false) => Instructions::Avx2,
        (false, _) => Instructions::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn found() -> Instructions {
    Instructions::Portable
}
