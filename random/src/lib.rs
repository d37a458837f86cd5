//! Counter-based random streams.
//!
//! A draw is a pure function of the seed and of its use: purpose, epoch, step, restart and example. A stream has no
//! state. So a result does not depend on batch size,
//! thread count, sharding, the order of the work, or whether a run was interrupted.
//!
//! ```
//! use random::{Purpose, Stream};
//!
//! let stream = Stream::new(7).of(Purpose::AttackStart).at(3);
//! let both = stream.uniform(&[10, 11], 4);
//! let alone = stream.uniform(&[11], 4);
//! assert_eq!(both[4..], alone[..]);
//! ```
//!
//! The generator is Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as
//! 1, 2, 3", SC 2011. Normal draws use Box–Muller with the portable `libm` functions, so that every
//! platform draws the same bits.

mod philox;

use std::sync::Arc;

pub use philox::philox4x32_10;

/// The use of a draw. Two purposes never share a draw. The numbers are part of every result's
/// reproducibility: never renumber, only append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial network parameters.
    Initialisation = 1,
    /// The order in which an epoch visits the training examples.
    Order = 2,
    /// Crops and flips.
    Augmentation = 3,
    /// Dropout masks.
    Dropout = 4,
    /// The inner attack of a training step.
    Training = 5,
    /// An attack in evaluation.
    Evaluation = 6,
    /// Where an attack starts.
    AttackStart = 7,
    /// Moves of an attack after its start (random search, random restarts).
    AttackMove = 8,
    /// Held-out validation examples.
    Split = 9,
    /// Which examples a limited subset keeps.
    Subset = 10,
    /// Selecting checkpoints on the validation split.
    Selection = 11,
}

/// A family of draws, addressed by their use. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stream(Source);

#[derive(Debug, Clone)]
enum Source {
    Philox { key: u64 },
    Replay(Arc<[f32]>),
}

impl Stream {
    /// The root stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Source::Philox { key: seed })
    }

    /// A stream that answers every request with these draws, for any purpose, one row per
    /// example in the order asked. It replays recorded noise when a result is compared with
    /// other code.
    pub fn replay(draws: Vec<f32>) -> Self {
        Self(Source::Replay(draws.into()))
    }

    /// The stream for a purpose.
    #[must_use]
    pub fn of(&self, purpose: Purpose) -> Self {
        // The high bit keeps purposes apart from indices.
        self.derive(purpose as u64 | 1 << 63)
    }

    /// The stream at an index of this one: an epoch, a step, a restart.
    #[must_use]
    pub fn at(&self, index: u64) -> Self {
        assert!(index < 1 << 63, "stream index {index} out of range");
        self.derive(index)
    }

    /// What the draws are a function of, with each example's id: the key of Philox4x32-10. A draw's block is the
    /// counter's low half, the id its high half. None for a stream that replays.
    pub fn key(&self) -> Option<u64> {
        match &self.0 {
            Source::Philox { key } => Some(*key),
            Source::Replay(_) => None,
        }
    }

    fn derive(&self, tag: u64) -> Self {
        match &self.0 {
            Source::Philox { key } => {
                let [a, b, _, _] = philox4x32_10(counter(tag, u64::MAX), split(*key));
                Self(Source::Philox { key: join(a, b) })
            }
            replay => Self(replay.clone()),
        }
    }

    /// `len` uniform draws in `[0, 1)` for each example, row after row: `[ids, len]`.
    /// Each is a multiple of 2⁻²⁴.
    pub fn uniform(&self, ids: &[u64], len: usize) -> Vec<f32> {
        self.fill(ids, len, |words, out| {
            for (value, word) in out.iter_mut().zip(words) {
                *value = (word >> 8) as f32 * (1.0 / (1 << 24) as f32);
            }
        })
    }

    /// `len` standard normal draws for each example, row after row: `[ids, len]`.
    pub fn normal(&self, ids: &[u64], len: usize) -> Vec<f32> {
        self.fill(ids, len, |words, out| {
            let pairs = [(words[0], words[1]), (words[2], words[3])];
            for (pair, (a, b)) in out.chunks_mut(2).zip(pairs) {
                // (0, 1] for the logarithm, [0, 1) for the angle.
                let u = (f64::from(a) + 1.0) / 4_294_967_296.0;
                let v = f64::from(b) / 4_294_967_296.0;
                let radius = libm::sqrt(-2.0 * libm::log(u));
                let angle = std::f64::consts::TAU * v;
                pair[0] = (radius * libm::cos(angle)) as f32;
                if let Some(second) = pair.get_mut(1) {
                    *second = (radius * libm::sin(angle)) as f32;
                }
            }
        })
    }

    /// A uniform integer in `0..bound` for one example. Rejection keeps it unbiased.
    pub fn below(&self, id: u64, bound: u64) -> u64 {
        assert!(bound > 0, "no integer below 0");
        let key = match &self.0 {
            Source::Philox { key } => *key,
            Source::Replay(draws) => return ((f64::from(draws[0]) * bound as f64) as u64).min(bound - 1),
        };
        let zone = u64::MAX - u64::MAX % bound;
        let mut block = 0;
        loop {
            let [a, b, c, d] = philox4x32_10(counter(block, id), split(key));
            for word in [join(a, b), join(c, d)] {
                if word < zone {
                    return word % bound;
                }
            }
            block += 1;
        }
    }

    /// A uniformly random order of `0..len` (Fisher–Yates).
    pub fn permutation(&self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for i in (1..len).rev() {
            order.swap(i, self.below(i as u64, i as u64 + 1) as usize);
        }
        order
    }

    fn fill(&self, ids: &[u64], len: usize, block: impl Fn([u32; 4], &mut [f32])) -> Vec<f32> {
        match &self.0 {
            Source::Replay(draws) => {
                assert_eq!(draws.len(), ids.len() * len, "recorded draws do not fit the request");
                draws.to_vec()
            }
            Source::Philox { key } => {
                let mut out = vec![0.0; ids.len() * len];
                if len == 0 {
                    return out;
                }
                for (row, &id) in out.chunks_mut(len).zip(ids) {
                    for (index, four) in row.chunks_mut(4).enumerate() {
                        block(philox4x32_10(counter(index as u64, id), split(*key)), four);
                    }
                }
                out
            }
        }
    }
}

fn counter(low: u64, high: u64) -> [u32; 4] {
    let ([a, b], [c, d]) = (split(low), split(high));
    [a, b, c, d]
}

fn split(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn purposes_and_indices_are_different_streams() {
        let root = Stream::new(1);
        let draws = |stream: Stream| stream.uniform(&[0], 4);
        assert_ne!(draws(root.clone()), draws(root.of(Purpose::Order)));
        assert_ne!(draws(root.of(Purpose::Order)), draws(root.of(Purpose::Dropout)));
        assert_ne!(draws(root.at(0)), draws(root.at(1)));
        assert_ne!(draws(root.at(7)), draws(root.of(Purpose::AttackStart)));
        assert_ne!(draws(Stream::new(0)), draws(Stream::new(1)));
    }

    #[test]
    fn uniform_has_the_moments_of_a_uniform() {
        let draws = Stream::new(3).uniform(&(0..1000).collect::<Vec<_>>(), 100);
        assert!(draws.iter().all(|u| (0.0..1.0).contains(u)));
        let mean = draws.iter().map(|&u| f64::from(u)).sum::<f64>() / 1e5;
        let square = draws.iter().map(|&u| f64::from(u * u)).sum::<f64>() / 1e5;
        // Five standard errors of each estimate over 100,000 draws.
        assert!((mean - 0.5).abs() < 5.0 * (1.0f64 / 12.0 / 1e5).sqrt(), "{mean}");
        assert!(
            (square - 1.0 / 3.0).abs() < 5.0 * (4.0f64 / 45.0 / 1e5).sqrt(),
            "{square}"
        );
    }

    #[test]
    fn normal_has_the_moments_of_a_normal() {
        let draws = Stream::new(4).normal(&(0..1000).collect::<Vec<_>>(), 101);
        let moment = |power: i32| draws.iter().map(|&z| f64::from(z).powi(power)).sum::<f64>() / 101e3;
        let error = |variance: f64| 5.0 * (variance / 101e3).sqrt();
        assert!(moment(1).abs() < error(1.0));
        assert!((moment(2) - 1.0).abs() < error(2.0));
        assert!(moment(3).abs() < error(15.0));
        assert!((moment(4) - 3.0).abs() < error(96.0));
    }

    #[test]
    fn permutations_are_uniform() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6000 {
            *counts.entry(Stream::new(seed).permutation(3)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        for (order, count) in counts {
            // Binomial(6000, 1/6): standard deviation 29.
            assert!((count - 1000i32).abs() < 150, "{order:?}: {count}");
        }
    }

    #[test]
    fn replay_returns_what_was_recorded() {
        let stream = Stream::replay(vec![0.25, 0.5]).of(Purpose::AttackStart).at(9);
        assert_eq!(stream.uniform(&[5, 6], 1), [0.25, 0.5]);
        assert_eq!(stream.normal(&[0], 2), [0.25, 0.5]);
    }

    proptest! {
        #[test]
        fn a_row_depends_on_its_example_alone(seed: u64, ids in prop::collection::vec(any::<u64>(), 1..8), len in 0usize..40) {
            let stream = Stream::new(seed);
            let (uniform, normal) = (stream.uniform(&ids, len), stream.normal(&ids, len));
            for (row, &id) in ids.iter().enumerate() {
                prop_assert_eq!(&uniform[row * len..(row + 1) * len], stream.uniform(&[id], len));
                prop_assert_eq!(&normal[row * len..(row + 1) * len], stream.normal(&[id], len));
            }
        }

        #[test]
        fn below_stays_below(seed: u64, id: u64, bound in 1u64..) {
            prop_assert!(Stream::new(seed).below(id, bound) < bound);
        }
    }
}
