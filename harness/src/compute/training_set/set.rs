//! The examples of a training with their labels.
//!
//! Which examples an epoch sees, in which order, is a function of seed and epoch alone.

use anyhow::Context;
use defenses::{Group, Step, TeacherPredictions};
use plan::Training;
use random::{Purpose, Stream};

use super::teacher_predictions::StoredPredictions;
use crate::compute::data::Data;
use crate::failure::Failure;

/// A training's examples with their labels.
#[derive(Debug)]
pub(crate) struct TrainingSet {
    /// Examples with labels of their own, then those with pseudo-labels.
    examples: Vec<usize>,
    /// How many of them have labels of their own.
    labeled: usize,
    /// The number of examples per epoch.
    epoch: usize,
    /// The label of every example of the training split that is trained on.
    labels: Vec<u32>,
    /// The weight of an example with a pseudo-label.
    weight: f32,
    /// How much of each batch is taken from those with pseudo-labels.
    share: Option<f64>,
    /// The group of every example of the training split.
    groups: Option<Vec<Option<Group>>>,
}

impl TrainingSet {
    /// Labeled examples and no teacher.
    pub(crate) fn without_teacher(data: &Data) -> Self {
        Self {
            examples: data.train.clone(),
            labeled: data.train.len(),
            epoch: data.epoch(None),
            labels: data.dataset.train.labels().to_vec(),
            weight: 1.0,
            share: None,
            groups: None,
        }
    }

    /// The examples with a teacher's predictions.
    pub(crate) fn with_teacher(cell: &Training, data: &Data, predictions: &StoredPredictions) -> Result<Self, Failure> {
        let mut set = Self::without_teacher(data);
        let mut groups = vec![None; set.labels.len()];
        if let Some(unlabeled) = cell.supervision.unlabeled {
            for &example in &data.unlabeled {
                let place = predictions.examples.binary_search(&example).ok();
                let class = place.context("the teacher has no prediction for an unlabeled example")?;
                set.labels[example] = predictions.classes[class];
                groups[example] = Some(Group::Unlabeled);
            }
            set.examples.extend(&data.unlabeled);
            set.epoch = data.epoch(Some(unlabeled));
            (set.weight, set.share) = (unlabeled.weight as f32, unlabeled.share);
        }
        for (group, members) in [
            (Group::Misclassified, &predictions.misclassified),
            (Group::Correct, &predictions.correct),
        ] {
            for &example in members.iter().flatten() {
                groups[example] = Some(group);
            }
        }
        set.groups = Some(groups);
        Ok(set)
    }

    /// Examples of an epoch.
    pub(crate) fn epoch(&self) -> usize {
        self.epoch
    }

    /// Some of the examples, to find out what fits into memory.
    pub(crate) fn some(&self, most: usize) -> &[usize] {
        &self.examples[..most.min(self.epoch)]
    }

    /// The examples of an epoch in their order, `batch` of them a step. `stream` is the epoch's.
    ///
    /// With a share s of examples with pseudo-labels, each step of B examples takes ⌊s·B⌋ of them, after
    /// B − ⌊s·B⌋ labeled ones. Of either kind each comes once before one comes again.
    pub(crate) fn order(&self, stream: &Stream, batch: usize) -> Vec<usize> {
        let Some(share) = self.share else {
            let rows = stream.permutation(self.examples.len());
            return rows.into_iter().map(|row| self.examples[row]).collect();
        };
        let (labeled, unlabeled) = self.examples.split_at(self.labeled);
        let (mut labeled, mut unlabeled) = (reshuffled(labeled, stream.at(0)), reshuffled(unlabeled, stream.at(1)));
        let mut order = Vec::with_capacity(self.epoch);
        for start in (0..self.epoch).step_by(batch) {
            let size = batch.min(self.epoch - start);
            let taken = (size as f64 * share) as usize;
            order.extend(labeled.by_ref().take(size - taken));
            order.extend(unlabeled.by_ref().take(taken));
        }
        order
    }

    /// The draws for augmenting a step's images. Where an example may come several times in an epoch, they are the
    /// step's own.
    pub(crate) fn augmentation(&self, random: &Stream, epoch: u64, step_in_epoch: u64) -> Stream {
        let epoch = random.of(Purpose::Augmentation).at(epoch);
        match self.share {
            None => epoch,
            Some(_) => epoch.at(step_in_epoch),
        }
    }

    /// The labels of examples.
    pub(crate) fn labels(&self, examples: &[usize]) -> Vec<u32> {
        examples.iter().map(|&example| self.labels[example]).collect()
    }

    /// The teacher's predictions on a batch of examples.
    pub(crate) fn teacher_predictions(&self, examples: &[usize]) -> TeacherPredictions {
        let Some(groups) = &self.groups else {
            return TeacherPredictions::default();
        };
        let groups: Vec<Option<Group>> = examples.iter().map(|&example| groups[example]).collect();
        let weight = |group: &Option<Group>| match group {
            Some(Group::Unlabeled) => self.weight,
            _ => 1.0,
        };
        TeacherPredictions {
            weights: (self.weight != 1.0).then(|| groups.iter().map(weight).collect()),
            groups: Some(groups),
        }
    }
}

/// Fails where examples have different weights and the defense ignores them.
pub(crate) fn check_weights(cell: &Training, step: &Step<'_>) -> Result<(), Failure> {
    if step.ignores_weights() {
        return Err(Failure::Other(anyhow::anyhow!(
            "the defense {} does not end with `Step::mean`, so unlabeled examples would weigh as much as labeled ones; \
             leave `unlabeled.weight` at 1, or use `Step::mean`",
            cell.defense.name
        )));
    }
    Ok(())
}

/// These examples in an endless sequence of random orders.
fn reshuffled(examples: &[usize], stream: Stream) -> impl Iterator<Item = usize> + '_ {
    assert!(!examples.is_empty(), "there are examples");
    let round = move |round| stream.at(round).permutation(examples.len());
    (0..).flat_map(round).map(move |row| examples[row])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four labeled examples and six unlabeled ones, of ten.
    fn training_set(share: Option<f64>, weight: f32) -> TrainingSet {
        let examples = vec![1, 3, 5, 7, 0, 2, 4, 6, 8, 9];
        let mut groups = vec![None; 10];
        examples[4..]
            .iter()
            .for_each(|&example| groups[example] = Some(Group::Unlabeled));
        groups[3] = Some(Group::Misclassified);
        TrainingSet {
            examples,
            labeled: 4,
            epoch: 10,
            labels: (10..20).collect(),
            weight,
            share,
            groups: Some(groups),
        }
    }

    fn epoch(epoch: u64) -> Stream {
        Stream::new(7).of(Purpose::Order).at(epoch)
    }

    #[test]
    fn without_a_share_each_example_is_used_once_in_the_usual_order() {
        let order = training_set(None, 1.0).order(&epoch(2), 3);
        let plain = epoch(2).permutation(10);
        assert_eq!(
            order,
            plain
                .iter()
                .map(|&row| training_set(None, 1.0).examples[row])
                .collect::<Vec<_>>()
        );
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn every_step_has_the_share_and_examples_repeat_only_after_all_were_used() {
        let set = training_set(Some(0.5), 1.0);
        let order = set.order(&epoch(0), 4);
        assert_eq!(order.len(), 10);
        let is_labeled = |example: &usize| set.examples[..4].contains(example);
        let labeled: Vec<Vec<bool>> = order
            .chunks(4)
            .map(|step| step.iter().map(is_labeled).collect())
            .collect();
        assert_eq!(labeled[0], [true, true, false, false]);
        assert_eq!(labeled[1], [true, true, false, false]);
        assert_eq!(labeled[2], [true, false]);
        for kind in [true, false] {
            let mut of_kind: Vec<usize> = order
                .iter()
                .copied()
                .filter(|example| is_labeled(example) == kind)
                .collect();
            of_kind.truncate(if kind { 4 } else { 5 });
            of_kind.sort_unstable();
            of_kind.dedup();
            assert_eq!(of_kind.len(), if kind { 4 } else { 5 });
        }
        assert_eq!(order, set.order(&epoch(0), 4));
        assert_ne!(order, set.order(&epoch(1), 4));
    }

    #[test]
    fn the_word_of_a_teacher_weighs_what_it_is_said_to_weigh() {
        let batch = training_set(None, 0.5).teacher_predictions(&[3, 0, 1]);
        assert_eq!(batch.weights, Some(vec![1.0, 0.5, 1.0]));
        assert_eq!(
            batch.groups,
            Some(vec![Some(Group::Misclassified), Some(Group::Unlabeled), None])
        );
        // Equal weights are a plain mean, bit for bit.
        assert_eq!(training_set(None, 1.0).teacher_predictions(&[3, 0, 1]).weights, None);
        assert_eq!(training_set(None, 1.0).labels(&[3, 0]), [13, 10]);
    }
}
