//! What a training learns from: its examples, their labels, and what a teacher says of them.
//!
//! A teacher is asked once, before the first step, about every training example as it is, in evaluation mode. What it
//! said stays in the folder of the training that asked (`teacher.json`), and a resumed training reads it there.
//!
//! Which examples an epoch sees, in which order, is a function of seed and epoch alone.

use std::path::Path;

use anyhow::Context;
use candle_core::Device;
use datasets::Split;
use defenses::{Group, Step, TeacherPredictions};
use models::{Classifier, Network};
use plan::Training;
use random::{Purpose, Stream};
use runs::files;
use serde::{Deserialize, Serialize};

use crate::data::{Data, plain_batch};
use crate::failure::Failure;
use crate::progress::Bar;
use crate::work::evaluation::{self, predictions};

/// What the teacher said, in the folder of the training that asked it.
pub(crate) const TEACHER: &str = "teacher.json";
/// Index of the draw of S⁺ among those of [`Purpose::Subset`]; the first ones cut data sets.
const CORRECT: u64 = 3;

/// What a teacher said of the training examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Said {
    /// The training that asked.
    pub(crate) key: String,
    /// The training that was asked.
    pub(crate) teacher: String,
    /// How many epochs it had then.
    pub(crate) epoch: u64,
    /// The examples, as their numbers in the official training split.
    pub(crate) examples: Vec<usize>,
    /// The class of each.
    pub(crate) classes: Vec<u32>,
    /// S⁻ and S⁺, if somebody treats them.
    pub(crate) misclassified: Option<Vec<usize>>,
    pub(crate) correct: Option<Vec<usize>>,
}

impl Said {
    /// What was said in this folder, if it was said to this training.
    pub(crate) fn read(folder: &Path, key: &str) -> anyhow::Result<Option<Self>> {
        let said: Option<Self> = files::read_sealed(&folder.join(TEACHER))?;
        if let Some(said) = &said {
            let whole = said.examples.len() == said.classes.len();
            anyhow::ensure!(
                said.key == key && whole,
                "{} belongs to another training",
                folder.join(TEACHER).display()
            );
        }
        Ok(said)
    }

    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        files::write_sealed(&folder.join(TEACHER), self)
    }
}

/// Asks a teacher, with `epoch` epochs behind it, about the examples of a training. Its answers do not depend on how
/// many it is asked about at once.
pub(crate) fn ask(
    cell: &Training,
    teacher: &Network,
    epoch: u64,
    data: &Data,
    device: &Device,
    bar: &Bar,
) -> Result<Said, Failure> {
    let frozen = teacher.freeze()?;
    let frozen: &dyn Classifier = frozen.as_deref().unwrap_or(teacher);
    let mut examples = data.train.clone();
    if cell.supervision.unlabeled.is_some() {
        examples.extend(&data.unlabeled);
    }
    examples.sort_unstable();
    let mut classes = Vec::with_capacity(examples.len());
    for rows in examples.chunks(evaluation::batch()) {
        if bar.interrupted() {
            return Err(Failure::Interrupted);
        }
        let batch = plain_batch(&data.dataset.train, rows, device)?;
        classes.extend(predictions(frozen, &batch.images)?);
    }
    let mut said = Said {
        key: cell.key.clone(),
        teacher: cell
            .supervision
            .teacher
            .as_ref()
            .map_or_else(String::new, |it| it.key.clone()),
        epoch,
        examples,
        classes,
        misclassified: None,
        correct: None,
    };
    if matches!(
        cell.defense.method.treats(),
        Some(Group::Misclassified | Group::Correct)
    ) {
        let (misclassified, correct) = divide(&said, &data.dataset.train, &data.train)?;
        (said.misclassified, said.correct) = (Some(misclassified), Some(correct));
    }
    Ok(said)
}

/// S⁻, the labeled examples that the teacher misclassifies, and S⁺, as many of the others, both ascending. The draw is
/// that of the examples, the same for all trainings.
fn divide(said: &Said, split: &Split, labeled: &[usize]) -> Result<(Vec<usize>, Vec<usize>), Failure> {
    let right = |example: &usize| {
        let place = said.examples.binary_search(example).ok();
        place.map(|place| said.classes[place]) == Some(split.labels()[*example])
    };
    let (mut correct, misclassified): (Vec<usize>, Vec<usize>) = labeled.iter().copied().partition(|it| right(it));
    if misclassified.is_empty() || correct.len() < misclassified.len() {
        return Err(Failure::Other(anyhow::anyhow!(
            "the teacher misclassifies {} of its {} training examples, so there is no pair of equally large groups to \
             treat; train it {}",
            misclassified.len(),
            labeled.len(),
            if misclassified.is_empty() {
                "for a shorter time"
            } else {
                "longer or better"
            },
        )));
    }
    let stream = Stream::new(0).of(Purpose::Subset).at(CORRECT);
    correct.sort_by_cached_key(|&example| (stream.below(example as u64, 1 << 62), example));
    correct.truncate(misclassified.len());
    correct.sort_unstable();
    Ok((misclassified, correct))
}

/// What is wrong with what a teacher said to a finished training. `epoch`: how many the teacher's checkpoint has.
pub(crate) fn breaches(cell: &Training, epoch: Option<u64>, folder: &Path) -> Vec<String> {
    let said = match Said::read(folder, &cell.key) {
        Ok(Some(said)) => said,
        Ok(None) => return vec![format!("{TEACHER} is missing")],
        Err(error) => return vec![format!("{error:#}")],
    };
    let mut breaches = Vec::new();
    let mut breach = |right: bool, text: &str| {
        if !right {
            breaches.push(format!("{TEACHER}: {text}"));
        }
    };
    let teacher = cell.supervision.teacher.as_ref().map(|it| &it.key);
    breach(teacher == Some(&said.teacher), "another teacher than the matrix names");
    breach(
        epoch == Some(said.epoch),
        "another epoch than that of the teacher's checkpoint",
    );
    let classes = cell.setting.classes as u32;
    breach(said.classes.iter().all(|it| *it < classes), "a class that there is not");
    breach(is_ascending(&said.examples), "an example twice, or out of order");
    let groups = [&said.misclassified, &said.correct].map(|it| it.as_deref().unwrap_or_default());
    let known = |it: &usize| said.examples.binary_search(it).is_ok();
    let ordered = groups.iter().all(|it| is_ascending(it) && it.iter().all(known));
    breach(
        ordered,
        "a group with an example that the teacher was not asked about, or twice the same",
    );
    let apart = groups[0].iter().all(|it| groups[1].binary_search(it).is_err());
    breach(
        apart && groups[0].len() == groups[1].len(),
        "groups that overlap or differ in size",
    );
    breaches
}

fn is_ascending(examples: &[usize]) -> bool {
    examples.windows(2).all(|pair| pair[0] < pair[1])
}

/// A training's examples with their labels.
#[derive(Debug)]
pub(crate) struct Lessons {
    /// Examples with labels of their own, then those whose labels are the teacher's word.
    examples: Vec<usize>,
    /// How many of them are of the first kind.
    labeled: usize,
    /// How many come in an epoch.
    epoch: usize,
    /// The label of every example of the training split that is trained on.
    labels: Vec<u32>,
    /// The weight of an example whose label is the teacher's word.
    weight: f32,
    /// How much of each batch is taken from those.
    share: Option<f64>,
    /// The group of every example of the training split.
    groups: Option<Vec<Option<Group>>>,
}

impl Lessons {
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

    /// With what a teacher said.
    pub(crate) fn with_teacher(cell: &Training, data: &Data, said: &Said) -> Result<Self, Failure> {
        let mut lessons = Self::without_teacher(data);
        let mut groups = vec![None; lessons.labels.len()];
        if let Some(unlabeled) = cell.supervision.unlabeled {
            for &example in &data.unlabeled {
                let place = said.examples.binary_search(&example).ok();
                let class = place.context("the teacher said nothing of an unlabeled example")?;
                lessons.labels[example] = said.classes[class];
                groups[example] = Some(Group::Unlabeled);
            }
            lessons.examples.extend(&data.unlabeled);
            lessons.epoch = data.epoch(Some(unlabeled));
            (lessons.weight, lessons.share) = (unlabeled.weight as f32, unlabeled.share);
        }
        for (group, members) in [
            (Group::Misclassified, &said.misclassified),
            (Group::Correct, &said.correct),
        ] {
            for &example in members.iter().flatten() {
                groups[example] = Some(group);
            }
        }
        lessons.groups = Some(groups);
        Ok(lessons)
    }

    /// Examples of an epoch.
    pub(crate) fn epoch(&self) -> usize {
        self.epoch
    }

    /// Some of the examples, to try what fits into memory.
    pub(crate) fn some(&self, most: usize) -> &[usize] {
        &self.examples[..most.min(self.epoch)]
    }

    /// The examples of an epoch in their order, `batch` of them a step. `stream` is the epoch's.
    ///
    /// With a share s of examples whose labels the teacher gave, each step of B examples takes ⌊s·B⌋ of them, after
    /// B − ⌊s·B⌋ labeled ones. Of either kind each comes once before one comes again.
    pub(crate) fn order(&self, stream: &Stream, batch: usize) -> Vec<usize> {
        let Some(share) = self.share else {
            let rows = stream.permutation(self.examples.len());
            return rows.into_iter().map(|row| self.examples[row]).collect();
        };
        let (labeled, unlabeled) = self.examples.split_at(self.labeled);
        let (mut labeled, mut unlabeled) = (turns(labeled, stream.at(0)), turns(unlabeled, stream.at(1)));
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

    /// What the teacher says of a batch of examples.
    pub(crate) fn taught(&self, examples: &[usize]) -> TeacherPredictions {
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

/// Fails where examples are to weigh differently and the defense takes no notice.
pub(crate) fn check_weights(cell: &Training, step: &Step<'_>) -> Result<(), Failure> {
    match step.ignores_weights() {
        false => Ok(()),
        true => Err(Failure::Other(anyhow::anyhow!(
            "the defense {} does not end with `Step::mean`, so unlabeled examples would weigh as much as labeled ones; \
             leave `unlabeled.weight` at 1, or let it end so",
            cell.defense.name
        ))),
    }
}

/// These examples in one random order after another, for ever.
fn turns(examples: &[usize], stream: Stream) -> impl Iterator<Item = usize> + '_ {
    assert!(!examples.is_empty(), "there is nothing to take turns");
    let turn = move |turn| stream.at(turn).permutation(examples.len());
    (0..).flat_map(turn).map(move |row| examples[row])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four labeled examples and six unlabeled ones, of ten.
    fn lessons(share: Option<f64>, weight: f32) -> Lessons {
        let examples = vec![1, 3, 5, 7, 0, 2, 4, 6, 8, 9];
        let mut groups = vec![None; 10];
        examples[4..].iter().for_each(|&it| groups[it] = Some(Group::Unlabeled));
        groups[3] = Some(Group::Misclassified);
        Lessons {
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
    fn without_a_share_every_example_comes_once_in_the_order_it_always_had() {
        let order = lessons(None, 1.0).order(&epoch(2), 3);
        let plain = epoch(2).permutation(10);
        assert_eq!(
            order,
            plain
                .iter()
                .map(|&row| lessons(None, 1.0).examples[row])
                .collect::<Vec<_>>()
        );
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_share_is_kept_in_every_step_and_nobody_comes_again_before_all_have_come() {
        let lessons = lessons(Some(0.5), 1.0);
        let order = lessons.order(&epoch(0), 4);
        assert_eq!(order.len(), 10);
        let is_labeled = |it: &usize| lessons.examples[..4].contains(it);
        let labeled: Vec<Vec<bool>> = order
            .chunks(4)
            .map(|step| step.iter().map(is_labeled).collect())
            .collect();
        assert_eq!(labeled[0], [true, true, false, false]);
        assert_eq!(labeled[1], [true, true, false, false]);
        assert_eq!(labeled[2], [true, false]);
        for kind in [true, false] {
            let mut of_kind: Vec<usize> = order.iter().copied().filter(|it| is_labeled(it) == kind).collect();
            of_kind.truncate(if kind { 4 } else { 5 });
            of_kind.sort_unstable();
            of_kind.dedup();
            assert_eq!(of_kind.len(), if kind { 4 } else { 5 });
        }
        assert_eq!(order, lessons.order(&epoch(0), 4));
        assert_ne!(order, lessons.order(&epoch(1), 4));
    }

    #[test]
    fn the_word_of_a_teacher_weighs_what_it_is_said_to_weigh() {
        let taught = lessons(None, 0.5).taught(&[3, 0, 1]);
        assert_eq!(taught.weights, Some(vec![1.0, 0.5, 1.0]));
        assert_eq!(
            taught.groups,
            Some(vec![Some(Group::Misclassified), Some(Group::Unlabeled), None])
        );
        // Equal weights are a plain mean, bit for bit.
        assert_eq!(lessons(None, 1.0).taught(&[3, 0, 1]).weights, None);
        assert_eq!(lessons(None, 1.0).labels(&[3, 0]), [13, 10]);
    }

    #[test]
    fn the_groups_are_equally_large_and_drawn_by_example() {
        let labels: Vec<u32> = vec![0; 200];
        let split = Split::new([1, 1, 1], 1, vec![0; 200], labels).unwrap();
        let said = |wrong: &dyn Fn(usize) -> bool| Said {
            key: String::new(),
            teacher: String::new(),
            epoch: 1,
            examples: (0..200).collect(),
            classes: (0..200).map(|it| u32::from(wrong(it))).collect(),
            misclassified: None,
            correct: None,
        };
        let all: Vec<usize> = (0..200).collect();
        let (minus, plus) = divide(&said(&|it| it % 10 == 0), &split, &all).unwrap();
        assert_eq!(minus, (0..200).step_by(10).collect::<Vec<_>>());
        assert_eq!(plus.len(), minus.len());
        assert!(plus.iter().all(|it| it % 10 != 0) && plus.is_sorted());
        // One more mistake changes S⁺ by one or two examples: the draw is the example's own.
        let (_, again) = divide(&said(&|it| it % 10 == 0 || it == 1), &split, &all).unwrap();
        let kept = plus.iter().filter(|it| again.contains(it)).count();
        assert!(kept >= plus.len() - 1, "{plus:?} {again:?}");
        // Examples without labels are in neither.
        let (minus, plus) = divide(&said(&|it| it % 10 == 0), &split, &all[..100]).unwrap();
        assert!(minus.len() == 10 && plus.iter().chain(&minus).all(|it| *it < 100));
        for wrong in [&(|_| false) as &dyn Fn(usize) -> bool, &|it| it > 20] {
            let error = divide(&said(wrong), &split, &all).unwrap_err().to_string();
            assert!(error.contains("of its 200 training examples"), "{error}");
        }
    }
}
