//! What a training learns from: examples, labels, pseudo-labels and groups.

mod set;
mod teacher_predictions;

pub(crate) use self::set::{TrainingSet, check_weights};
pub(crate) use self::teacher_predictions::{StoredPredictions, TEACHER, predict};
