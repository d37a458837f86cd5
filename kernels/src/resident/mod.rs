//! What a GPU does in one kernel where Candle needs several, or the CPU and a copy.
//!
//! Each returns `None` where the operand is not on a GPU; the caller then does the same with Candle's operations.

mod cut;

use candle_core::{Result, Tensor};

pub use cut::Cut;

/// Draws of Philox4x32-10 for each example, row after row, in the shape of `like`: uniform in `[0, 1)` or
/// standard normal, the same bits as `random::Stream` of this key draws on the CPU.
pub fn draws(like: &Tensor, key: u64, ids: &[u64], normal: bool) -> Result<Option<Tensor>> {
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes("draws", like)? {
        return crate::cuda::operations::draws(like, key, ids, normal).map(Some);
    }
    let _ = (like, key, ids, normal);
    Ok(None)
}

/// Windows `[rows, C, H, W]` of byte images `[N, C, H, W]` (u8), over the scale: image `rows[i]` cut at
/// `draws[i]` = (top, left, whether flipped) of the padded image.
pub fn crop_flip(images: &Tensor, rows: &[u32], draws: &[[u32; 3]], cut: &Cut) -> Result<Option<Tensor>> {
    assert_eq!(rows.len(), draws.len(), "every window needs its draw");
    #[cfg(feature = "cuda")]
    if images.device().is_cuda() {
        let held = images.dims().first().copied().unwrap_or_default();
        if let Some(row) = rows.iter().find(|&&row| row as usize >= held) {
            candle_core::bail!("crop_flip: there is no image {row} among {held}");
        }
        return crate::cuda::operations::crop_flip(images, rows, draws, cut).map(Some);
    }
    let _ = (images, cut);
    Ok(None)
}
