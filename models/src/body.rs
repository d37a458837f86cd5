//! What a network is made of.

use candle_core::{Result, Tensor};
use kernels::{Layers, Value};

use crate::layers::Pass;

/// The layers of a network and their order.
pub trait Body: Send + Sync {
    /// The logits `[B, K]` of images `[B, C, H, W]`, through Candle's graph: layers of this crate, operations of
    /// `kernels`, or any of Candle's on what [`Pass::parameter`] gives.
    fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor>;

    /// What happens to images before the first layer.
    fn prepare(&self, images: &Tensor) -> Result<Tensor> {
        Ok(images.clone())
    }

    /// Records the same layers, after [`Body::prepare`], one by one from images to logits. The network then trains as
    /// one operation and attacks run on its frozen form, several times faster. `None`: the network has layers that
    /// cannot be recorded, and only [`Body::forward`] is used.
    fn describe(&self, make: &mut dyn Layers, images: Value) -> Result<Option<Value>> {
        let _ = (make, images);
        Ok(None)
    }
}
