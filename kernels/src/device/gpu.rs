//! Properties of a GPU.

/// The properties of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// The card's name.
    pub name: String,
    /// Compute capability, such as (9, 0).
    pub capability: (i32, i32),
    /// Bytes of memory that are free, and all of them.
    pub memory: (usize, usize),
    /// The CUDA version that the driver supports, as 1000 · major + 10 · minor.
    pub driver: i32,
    /// The version of cuDNN, as 10000 · major + 100 · minor + patch.
    pub cudnn: usize,
}
