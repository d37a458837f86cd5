//! Memory that one training step leaves to the next.

use std::sync::{Arc, Mutex};

/// Large buffers that are free, shared by all passes of a network. Without it every step would ask the
/// system for as much memory as its activations take, and be given it page by page.
#[derive(Clone, Default)]
pub struct Pool {
    free: Arc<Mutex<Vec<Vec<f32>>>>,
    /// What a GPU keeps.
    #[cfg(feature = "cuda")]
    pub(super) card: crate::cuda::trained::Pool,
}

/// Buffers smaller than this are not worth keeping.
const LEAST: usize = 1 << 14;

impl Pool {
    /// A buffer of a length; its numbers may be anything.
    pub(super) fn take(&self, len: usize) -> Vec<f32> {
        let mut free = self.free.lock().expect("no pass panics with the lock");
        // The smallest that is large enough; one twice as large is better kept for a larger value.
        let fitting = |buffer: &Vec<f32>| (len..2 * len.max(1)).contains(&buffer.capacity());
        let candidates = free.iter().enumerate().filter(|(_, buffer)| fitting(buffer));
        let best = candidates
            .min_by_key(|(_, buffer)| buffer.capacity())
            .map(|(index, _)| index);
        let taken = best.map(|index| free.swap_remove(index));
        drop(free);
        match taken {
            Some(mut buffer) => {
                buffer.resize(len, 0.0);
                buffer
            }
            None => vec![0.0; len],
        }
    }

    /// A buffer of zeros.
    pub(super) fn zeros(&self, len: usize) -> Vec<f32> {
        let mut buffer = self.take(len);
        buffer.fill(0.0);
        buffer
    }

    /// Gives a buffer back.
    pub(super) fn give(&self, buffer: Vec<f32>) {
        if buffer.capacity() >= LEAST {
            self.free.lock().expect("no pass panics with the lock").push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_that_fits_comes_back() {
        let pool = Pool::default();
        for len in [LEAST, 3 * LEAST, 2 * LEAST, 8] {
            pool.give(vec![1.0; len]);
        }
        assert_eq!(pool.take(LEAST + 1).capacity(), 2 * LEAST);
        assert_eq!(pool.take(LEAST).capacity(), LEAST);
        assert_eq!(pool.zeros(2 * LEAST), vec![0.0; 2 * LEAST]);
        // Nothing is left, and small ones are not kept.
        assert_eq!(pool.take(8), vec![0.0; 8]);
    }
}
