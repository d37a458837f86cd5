//! The source of the kernels, which is compiled when a card is first used.

/// The source of all kernels. `base` comes first, and `norm` before `steps`.
pub(crate) const KERNELS: &str = concat!(
    include_str!("kernels/base.cu"),
    include_str!("kernels/elements.cu"),
    include_str!("kernels/pool.cu"),
    include_str!("kernels/norm.cu"),
    include_str!("kernels/logits.cu"),
    include_str!("kernels/steps.cu"),
    include_str!("kernels/draws.cu"),
    include_str!("kernels/images.cu"),
);

/// The names of all kernels.
pub(crate) fn kernel_names() -> impl Iterator<Item = &'static str> {
    let after = KERNELS.split("\nKERNEL ").skip(1);
    after.map(|text| text.split('(').next().unwrap_or_default())
}
