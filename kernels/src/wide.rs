//! Loops over arrays, compiled for the widest registers there are.

/// Runs a function that inlines, compiled for AVX-512 or AVX2 where this machine has it. Without fused
/// multiply-adds, so that results are the same everywhere.
#[inline(always)]
pub(crate) fn wide<R>(run: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        fn avx512<R>(run: impl FnOnce() -> R) -> R {
            run()
        }

        #[target_feature(enable = "avx2")]
        fn avx2<R>(run: impl FnOnce() -> R) -> R {
            run()
        }

        let has_avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        #[allow(unsafe_code, reason = "the functions need CPU features")]
        if has_avx512 {
            // SAFETY: the features have just been found on this machine.
            return unsafe { avx512(run) };
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2(run) };
        }
    }
    run()
}
