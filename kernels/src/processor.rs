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

/// The instructions that the kernels use: the best that this machine has, or less if the environment variable
/// `RAMPART_INSTRUCTIONS` says `portable`, `avx2` or `avx512`. For finding out what another processor would compute.
pub fn instructions() -> Instructions {
    static USED: OnceLock<Instructions> = OnceLock::new();
    *USED.get_or_init(|| {
        let most = match std::env::var("RAMPART_INSTRUCTIONS").as_deref() {
            Err(_) | Ok("avx512") => Instructions::Avx512,
            Ok("avx2") => Instructions::Avx2,
            Ok("portable") => Instructions::Portable,
            Ok(other) => panic!("RAMPART_INSTRUCTIONS={other} is none of portable, avx2 and avx512"),
        };
        most.min(found())
    })
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
