//! The memory of a frozen network's program, region by region.

use crate::cuda::machine::Address;
use crate::cuda::program::batch::WORK;

// The regions of a program after the work memory. All but the parameters hold f32 tensors in Candle's order.
pub(super) const PARAMETERS: usize = 1;
pub(super) const IMAGES: usize = 2;
pub(super) const LOGITS: usize = 3;
pub(super) const LOGIT_GRADIENT: usize = 4;
pub(super) const IMAGE_GRADIENT: usize = 5;

/// Where a run of a program finds everything.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bases {
    pub(crate) work: Address,
    pub(crate) parameters: Address,
    pub(crate) images: Address,
    pub(crate) logits: Address,
    pub(crate) logit_gradient: Address,
    pub(crate) image_gradient: Address,
}

impl Bases {
    /// By region.
    pub(super) fn starts(&self) -> [Address; 6] {
        let mut starts = [0; 6];
        starts[WORK] = self.work;
        starts[PARAMETERS] = self.parameters;
        starts[IMAGES] = self.images;
        starts[LOGITS] = self.logits;
        starts[LOGIT_GRADIENT] = self.logit_gradient;
        starts[IMAGE_GRADIENT] = self.image_gradient;
        starts
    }
}
