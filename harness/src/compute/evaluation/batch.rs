//! How many examples this process attacks together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Examples attacked together by default.
const BATCH: usize = 100;
/// How many examples this process attacks together. Results do not depend on it.
static TOGETHER: AtomicUsize = AtomicUsize::new(BATCH);

/// Sets how many examples this process attacks together.
pub(crate) fn set_batch(examples: usize) {
    TOGETHER.store(examples, Ordering::Relaxed);
}

/// How many examples this process attacks together.
pub(crate) fn batch() -> usize {
    TOGETHER.load(Ordering::Relaxed)
}
