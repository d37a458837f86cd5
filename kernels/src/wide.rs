//! Loops over arrays, compiled for the widest registers there are.

/// Defines a function whose body is compiled for AVX-512, for AVX2 and without either; a call runs what
/// this machine has. Without fused multiply-adds, so that results are the same in each. Generics are in
/// square brackets. Closures would not do: they are compiled on their own, without the features.
macro_rules! wide {
    ($(#[$meta:meta])* $vis:vis fn $name:ident[$($generics:tt)*]($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $vis fn $name<$($generics)*>($($argument: $type),*) {
            #[inline(always)]
            fn body<$($generics)*>($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
                fn avx512<$($generics)*>($($argument: $type),*) {
                    body($($argument),*);
                }

                #[target_feature(enable = "avx2")]
                fn avx2<$($generics)*>($($argument: $type),*) {
                    body($($argument),*);
                }

                #[allow(unsafe_code, reason = "the functions need CPU features")]
                match $crate::processor::instructions() {
                    // SAFETY: `instructions` has found these features on this machine.
                    $crate::processor::Instructions::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    $crate::processor::Instructions::Avx2 => return unsafe { avx2($($argument),*) },
                    $crate::processor::Instructions::Portable => {}
                }
            }
            body($($argument),*);
        }
    };
}
pub(crate) use wide;
