//! The memory of a program of a network in training, region by region.

use crate::cuda::launches::place;
use crate::cuda::machine::Address;
use crate::cuda::program::batch::WORK;
use crate::graph::Parameter;

// The regions of a program after the work memory. Images, logits, their gradients, parameters and running statistics
// are f32 tensors in Candle's order.
pub(super) const IMAGES: usize = 1;
pub(super) const LOGITS: usize = 2;
pub(super) const LOGIT_GRADIENT: usize = 3;
pub(super) const IMAGE_GRADIENT: usize = 4;
pub(super) const GRADIENTS: usize = 5;
pub(super) const FACTORS: usize = 6;
/// Every parameter, then running mean and variance of every normalisation.
pub(super) const TENSORS: usize = 7;

/// Where a run of a program finds everything; what it does not need may be nowhere.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bases<'a> {
    pub(crate) work: Address,
    pub(crate) images: Address,
    pub(crate) logits: Address,
    pub(crate) logit_gradient: Address,
    pub(crate) image_gradient: Address,
    /// All parameters' gradients, each at its place in `Program::gradients`.
    pub(crate) gradients: Address,
    /// The dropouts' factors, one after the other.
    pub(crate) factors: Address,
    pub(crate) parameters: &'a [Address],
    pub(crate) running: &'a [[Address; 2]],
}

impl Bases<'_> {
    /// By region.
    pub(super) fn starts(&self) -> Vec<Address> {
        let mut starts = vec![0; TENSORS];
        starts[WORK] = self.work;
        starts[IMAGES] = self.images;
        starts[LOGITS] = self.logits;
        starts[LOGIT_GRADIENT] = self.logit_gradient;
        starts[IMAGE_GRADIENT] = self.image_gradient;
        starts[GRADIENTS] = self.gradients;
        starts[FACTORS] = self.factors;
        starts.extend(self.parameters);
        starts.extend(self.running.iter().flatten());
        starts
    }
}

/// Where a parameter is.
pub(super) fn tensor(parameter: Parameter) -> Address {
    place(TENSORS + parameter, 0)
}
