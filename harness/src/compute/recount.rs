//! Classifies saved images again, as attacks and evaluations see them.

use anyhow::Result;
use candle_core::Tensor;
use models::Classifier;
use storage::examples::Examples;

use crate::compute::evaluation::predictions;
use crate::failure::Failure;

/// Examples evaluated together. Results do not depend on it.
const BATCH: usize = 100;

/// How many images are classified correctly, clean and attacked. `None`: a logit is not finite.
pub(crate) fn recount(network: &dyn Classifier, clean: &Tensor, examples: &Examples) -> Result<Option<(u64, u64)>> {
    let frozen = network.freeze()?;
    let network = frozen.as_deref().unwrap_or(network);
    let mut counts = [0, 0];
    for start in (0..examples.labels.len()).step_by(BATCH) {
        let length = BATCH.min(examples.labels.len() - start);
        let labels = &examples.labels[start..start + length];
        for (count, images) in counts.iter_mut().zip([clean, &examples.adversarial]) {
            let images = images.narrow(0, start, length)?.contiguous()?;
            let predicted = match predictions(network, &images) {
                Err(Failure::Integrity(_)) => return Ok(None),
                predicted => predicted?,
            };
            *count += predicted.iter().zip(labels).filter(|(a, b)| a == b).count() as u64;
        }
    }
    Ok(Some((counts[0], counts[1])))
}
