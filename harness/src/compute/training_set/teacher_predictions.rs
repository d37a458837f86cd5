//! What a teacher predicts on the training examples.
//!
//! A teacher is evaluated once, before the first step, on every training example without augmentation. Its predictions are
//! kept in the folder of the training that uses them (`teacher.json`), and a resumed training reads them there.

use std::path::Path;

use candle_core::Device;
use datasets::Split;
use defenses::Group;
use models::{Classifier, Network};
use plan::Training;
use random::{Purpose, Stream};
use serde::{Deserialize, Serialize};
use storage::files;

use crate::compute::data::{Data, plain_batch};
use crate::compute::evaluation;
use crate::failure::Failure;
use crate::progress::Bar;

/// The predictions, in the folder of the training that uses them.
pub(crate) const TEACHER: &str = "teacher.json";
/// Index of the draw of S⁺ among those of [`Purpose::Subset`]; the first ones cut data sets.
const CORRECT: u64 = 3;

/// A teacher's predictions on the training examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredPredictions {
    /// The training that uses them.
    pub(crate) key: String,
    /// The teacher's training.
    pub(crate) teacher: String,
    /// The epoch of its checkpoint.
    pub(crate) epoch: u64,
    /// The examples, as their numbers in the official training split.
    pub(crate) examples: Vec<usize>,
    /// The predicted class of each.
    pub(crate) classes: Vec<u32>,
    /// S⁻, if the defense treats a group of them.
    pub(crate) misclassified: Option<Vec<usize>>,
    /// S⁺, likewise.
    pub(crate) correct: Option<Vec<usize>>,
}

impl StoredPredictions {
    /// The predictions in this folder, if they are this training's.
    pub(crate) fn read(folder: &Path, key: &str) -> anyhow::Result<Option<Self>> {
        let predictions: Option<Self> = files::read_sealed(&folder.join(TEACHER))?;
        if let Some(stored) = &predictions {
            let complete = stored.examples.len() == stored.classes.len();
            anyhow::ensure!(
                stored.key == key && complete,
                "{} belongs to another training",
                folder.join(TEACHER).display()
            );
        }
        Ok(predictions)
    }

    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        files::write_sealed(&folder.join(TEACHER), self)
    }
}

/// The predictions of a teacher, whose checkpoint has `epoch` epochs, on the examples of a training. They do not depend on
/// the size of batches.
pub(crate) fn predict(
    cell: &Training,
    teacher: &Network,
    epoch: u64,
    data: &Data,
    device: &Device,
    bar: &Bar,
) -> Result<StoredPredictions, Failure> {
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
        classes.extend(evaluation::predictions(frozen, &batch.images)?);
    }
    let mut predictions = StoredPredictions {
        key: cell.key.clone(),
        teacher: cell
            .supervision
            .teacher
            .as_ref()
            .map_or_else(String::new, |teacher| teacher.key.clone()),
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
        let (misclassified, correct) = divide(&predictions, &data.dataset.train, &data.train)?;
        (predictions.misclassified, predictions.correct) = (Some(misclassified), Some(correct));
    }
    Ok(predictions)
}

/// S⁻, the labeled examples that the teacher misclassifies, and S⁺, as many of the others, both ascending. Each example
/// has its own draw, the same for all trainings.
fn divide(
    predictions: &StoredPredictions,
    split: &Split,
    labeled: &[usize],
) -> Result<(Vec<usize>, Vec<usize>), Failure> {
    let right = |example: &usize| {
        let place = predictions.examples.binary_search(example).ok();
        place.map(|place| predictions.classes[place]) == Some(split.labels()[*example])
    };
    let (mut correct, misclassified): (Vec<usize>, Vec<usize>) =
        labeled.iter().copied().partition(|example| right(example));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_are_equally_large_and_drawn_by_example() {
        let labels: Vec<u32> = vec![0; 200];
        let split = Split::new([1, 1, 1], 1, vec![0; 200], labels).unwrap();
        let predictions = |wrong: &dyn Fn(usize) -> bool| StoredPredictions {
            key: String::new(),
            teacher: String::new(),
            epoch: 1,
            examples: (0..200).collect(),
            classes: (0..200).map(|example| u32::from(wrong(example))).collect(),
            misclassified: None,
            correct: None,
        };
        let all: Vec<usize> = (0..200).collect();
        let (minus, plus) = divide(&predictions(&|example| example % 10 == 0), &split, &all).unwrap();
        assert_eq!(minus, (0..200).step_by(10).collect::<Vec<_>>());
        assert_eq!(plus.len(), minus.len());
        assert!(plus.iter().all(|example| example % 10 != 0) && plus.is_sorted());
        // One more mistake changes S⁺ by one or two examples: the draw is the example's own.
        let (_, again) = divide(&predictions(&|example| example % 10 == 0 || example == 1), &split, &all).unwrap();
        let kept = plus.iter().filter(|example| again.contains(example)).count();
        assert!(kept >= plus.len() - 1, "{plus:?} {again:?}");
        // Examples without labels are in neither.
        let (minus, plus) = divide(&predictions(&|example| example % 10 == 0), &split, &all[..100]).unwrap();
        assert!(minus.len() == 10 && plus.iter().chain(&minus).all(|example| *example < 100));
        for wrong in [&(|_| false) as &dyn Fn(usize) -> bool, &|example| example > 20] {
            let error = divide(&predictions(wrong), &split, &all).unwrap_err().to_string();
            assert!(error.contains("of its 200 training examples"), "{error}");
        }
    }
}
