//! Draws parts of a split in which each class keeps its share.
//!
//! An image's draw is a pure function of the stream and its index. So a part of n images contains, but
//! for rounding, every smaller part drawn from the same stream.

use random::Stream;

use crate::DataError;

/// Training examples apart from validation examples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldOut {
    /// What remains to train on, ascending.
    pub train: Vec<usize>,
    /// What is held out, ascending.
    pub validation: Vec<usize>,
}

/// Holds out exactly `n` examples, in the proportions of the classes (to within one per class). The
/// stream is the caller's for [`random::Purpose::Split`].
///
/// # Errors
/// [`DataError::HoldOut`] if nothing would remain to train on.
pub fn hold_out(labels: &[u32], n: usize, stream: &Stream) -> Result<HoldOut, DataError> {
    if n >= labels.len() {
        return Err(DataError::HoldOut {
            asked: n,
            available: labels.len(),
        });
    }
    let all: Vec<usize> = (0..labels.len()).collect();
    let validation = limit(labels, &all, n, stream);
    let mut held = vec![false; labels.len()];
    for &index in &validation {
        held[index] = true;
    }
    let train = all.into_iter().filter(|&index| !held[index]).collect();
    Ok(HoldOut { train, validation })
}

/// At most `n` of the examples `among` (indices into `labels`, each once), in the proportions that the
/// classes have there (to within one per class), ascending. The stream is the caller's for
/// [`random::Purpose::Subset`]. Panics if an index has no label.
pub fn limit(labels: &[u32], among: &[usize], n: usize, stream: &Stream) -> Vec<usize> {
    let mut classes: Vec<u32> = among.iter().map(|&index| labels[index]).collect();
    classes.sort_unstable();
    classes.dedup();
    let mut members: Vec<Vec<(u64, usize)>> = vec![Vec::new(); classes.len()];
    for &index in among {
        let class = classes.partition_point(|&class| class < labels[index]);
        members[class].push((stream.below(index as u64, 1 << 62), index));
    }
    let counts: Vec<usize> = members.iter().map(Vec::len).collect();
    let mut chosen = Vec::new();
    for (mut members, quota) in members.into_iter().zip(apportion(&counts, n.min(among.len()))) {
        members.sort_unstable();
        chosen.extend(members[..quota].iter().map(|&(_, index)| index));
    }
    chosen.sort_unstable();
    chosen
}

/// Shares `n` among classes of these sizes by largest remainder; the earlier class wins a tie. Each share
/// is its exact proportion rounded down or up, and never more than the class has. `n` is at most the sum.
pub(crate) fn apportion(counts: &[usize], n: usize) -> Vec<usize> {
    let total = counts.iter().sum::<usize>().max(1) as u128;
    let product = |count: usize| count as u128 * n as u128;
    let mut shares: Vec<usize> = counts.iter().map(|&count| (product(count) / total) as usize).collect();
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(product(counts[class]) % total));
    let left = n - shares.iter().sum::<usize>();
    for &class in &order[..left] {
        shares[class] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use random::Purpose;

    fn stream(seed: u64) -> Stream {
        Stream::new(seed).of(Purpose::Split)
    }

    #[test]
    fn shares_follow_the_largest_remainder() {
        // Exact shares 2.5, 1.5, 1.
        assert_eq!(apportion(&[5, 3, 2], 5), [3, 1, 1]);
        // Exact shares 3.2, 0.4, 0.4.
        assert_eq!(apportion(&[8, 1, 1], 4), [3, 1, 0]);
        assert_eq!(apportion(&[4, 4], 8), [4, 4]);
        assert_eq!(apportion(&[], 0), Vec::<usize>::new());
    }

    #[test]
    fn the_seed_chooses() {
        let labels: Vec<u32> = (0..100).map(|index| index % 10).collect();
        let one = hold_out(&labels, 30, &stream(1)).unwrap();
        assert_eq!(one, hold_out(&labels, 30, &stream(1)).unwrap());
        assert_ne!(one, hold_out(&labels, 30, &stream(2)).unwrap());
    }

    #[test]
    fn every_example_is_held_out_equally_often() {
        let labels: Vec<u32> = (0..20).map(|index| index / 10).collect();
        let mut counts = [0; 20];
        for seed in 0..2000 {
            for index in hold_out(&labels, 4, &stream(seed)).unwrap().validation {
                counts[index] += 1;
            }
        }
        // Binomial(2000, 1/5): standard deviation 18.
        assert!(counts.iter().all(|count| (400i32 - count).abs() < 90), "{counts:?}");
    }

    #[test]
    fn something_must_remain() {
        let error = hold_out(&[0, 1], 2, &stream(0)).unwrap_err();
        assert!(error.to_string().contains("cannot hold out 2 of 2"));
        assert_eq!(hold_out(&[0, 1], 0, &stream(0)).unwrap().train, [0, 1]);
    }

    #[test]
    fn a_limit_above_the_number_keeps_all() {
        assert_eq!(limit(&[0, 1, 0, 1], &[3, 0, 1], 10, &stream(0)), [0, 1, 3]);
    }

    proptest! {
        #[test]
        fn parts_are_exact_disjoint_and_proportional(
            labels in prop::collection::vec(0u32..5, 1..200),
            share in 0.0f64..1.0,
            seed: u64,
        ) {
            let n = (share * labels.len() as f64) as usize;
            let HoldOut { train, validation } = hold_out(&labels, n, &stream(seed)).unwrap();
            prop_assert_eq!(validation.len(), n);
            prop_assert!(train.is_sorted() && validation.is_sorted());
            let mut all = [train, validation.clone()].concat();
            all.sort();
            prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>());
            for class in 0..5 {
                let count = |indices: &[usize]| indices.iter().filter(|&&index| labels[index] == class).count() as f64;
                let exact = count(&(0..labels.len()).collect::<Vec<_>>()) * n as f64 / labels.len() as f64;
                prop_assert!((count(&validation) - exact).abs() < 1.0);
            }
        }

        #[test]
        fn a_subset_stays_within(labels in prop::collection::vec(0u32..5, 1..100), n in 0usize..120, seed: u64) {
            let among: Vec<usize> = (0..labels.len()).step_by(2).collect();
            let chosen = limit(&labels, &among, n, &stream(seed));
            prop_assert_eq!(chosen.len(), n.min(among.len()));
            prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(chosen.iter().all(|index| among.contains(index)));
        }
    }
}
