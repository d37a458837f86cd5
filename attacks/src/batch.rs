//! The examples that an attack works on.

use candle_core::{Result, Tensor};

use crate::rows::select_rows;

/// Images with their labels and identities.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[B, C, H, W]` in `[0, 1]`.
    pub images: Tensor,
    /// Class indices `[B]`, u32.
    pub labels: Tensor,
    /// Which example each row is, for draws that follow the example wherever it is batched.
    pub ids: Vec<u64>,
}

impl Batch {
    /// The examples at these places.
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
        Ok(Self {
            images: select_rows(&self.images, rows)?,
            labels: select_rows(&self.labels, rows)?,
            ids: rows.iter().map(|&row| self.ids[row]).collect(),
        })
    }
}
