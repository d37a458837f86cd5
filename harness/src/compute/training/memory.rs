//! The largest batch that fits into the device's memory.

use candle_core::Device;
use plan::Training;
use random::Stream;

use super::learner::Learner;
use crate::compute::data::Data;
use crate::compute::training_set::TrainingSet;
use crate::failure::Failure;

/// The largest batch, halving the recipe's, of which a step fits into the device's memory now.
pub(crate) fn batch_that_fits(cell: &Training, data: &Data, set: &TrainingSet, device: &Device) -> Option<usize> {
    halve_until_it_fits(cell.recipe.batch, |batch| {
        let indices = set.some(batch);
        let random = Stream::new(cell.seed);
        let labels = set.labels(indices);
        let images = data.training_batch(indices, labels, &cell.recipe.augment, &random, device, None)?;
        let mut learner = Learner::new(cell, data.dataset.train.len(), device)?;
        // An epoch in which everything the recipe asks for happens.
        let epoch = cell.recipe.awp.map_or(0, |awp| awp.warmup);
        learner.step(cell, &images, set.teacher_predictions(indices), random, epoch, 0.0)?;
        Ok(device.synchronize()?)
    })
}

/// The first of `batch`/2, `batch`/4, … for which `step` does not run out of memory. None if not
/// even one example fits, or if another error occurs.
fn halve_until_it_fits(batch: usize, mut step: impl FnMut(usize) -> Result<(), Failure>) -> Option<usize> {
    let mut batch = batch / 2;
    while batch > 0 {
        match step(batch) {
            Ok(()) => return Some(batch),
            Err(failure) if kernels::device::is_out_of_memory(&failure) => batch /= 2,
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_that_fits_is_found_by_halving() {
        let full =
            || Failure::from(candle_core::Error::msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY)").context("training"));
        let with_room_for =
            |most: usize| halve_until_it_fits(128, |batch| if batch <= most { Ok(()) } else { Err(full()) });
        assert_eq!(with_room_for(128), Some(64));
        assert_eq!(with_room_for(40), Some(32));
        assert_eq!(with_room_for(1), Some(1));
        assert_eq!(with_room_for(0), None);
        // Any other error is unrelated to memory, so smaller batches are not tried.
        let mut tries = 0;
        let other = halve_until_it_fits(128, |_| {
            tries += 1;
            Err(Failure::Integrity("something else".into()))
        });
        assert_eq!((other, tries), (None, 1));
        let said = Failure::Memory {
            batch: 128,
            fits: Some(32),
        }
        .to_string();
        assert!(said.contains("a batch of 32 would fit"), "{said}");
    }
}
