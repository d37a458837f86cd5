//! One training step.

use attacks::{Attack, Batch, Cost, Threat};
use candle_core::{Result, Tensor};
use models::{Classifier, Dropout, Mode};
use random::{Purpose, Stream};

use crate::{Memory, TeacherPredictions};

/// One training step as a defense sees it.
pub struct Step<'a> {
    /// The network in training.
    pub model: &'a dyn Classifier,
    /// The augmented batch. Ids index the training examples.
    pub batch: &'a Batch,
    /// The threat model.
    pub threat: &'a Threat,
    /// This step's draws.
    pub random: Stream,
    /// Epochs finished before this step, counted from 0.
    pub epoch: u64,
    /// What the defense remembers of each training example. Kept in checkpoints.
    pub memory: &'a mut Memory,
    /// A teacher's predictions for the batch.
    pub teacher: TeacherPredictions,
    /// Passes made so far in this step.
    pub cost: Cost,
    /// The images of the last inner attack, for the log.
    pub perturbed: Option<Tensor>,
    forwards: u64,
    /// The results of inner attacks, in the order of their calls.
    pub(crate) crafted: Vec<Vec<Tensor>>,
    /// The next of them, once they are used again.
    next: Option<usize>,
    weighed: bool,
}

impl<'a> Step<'a> {
    /// A step before any pass or attack.
    pub fn new(
        model: &'a dyn Classifier,
        batch: &'a Batch,
        threat: &'a Threat,
        random: Stream,
        epoch: u64,
        memory: &'a mut Memory,
    ) -> Self {
        Self {
            model,
            batch,
            threat,
            random,
            epoch,
            memory,
            teacher: TeacherPredictions::default(),
            cost: Cost::default(),
            perturbed: None,
            forwards: 0,
            crafted: Vec::new(),
            next: None,
            weighed: false,
        }
    }

    /// Logits in training mode: the batch's statistics, running statistics updated, dropout drawn.
    /// The order of these calls is part of a defense's definition, because the running statistics depend on it.
    pub fn train_logits(&mut self, images: &Tensor) -> Result<Tensor> {
        self.train_logits_of(images, &self.batch.ids)
    }

    /// As [`train_logits`](Self::train_logits), of images that are not those of the whole batch.
    pub fn train_logits_of(&mut self, images: &Tensor, ids: &[u64]) -> Result<Tensor> {
        let random = self.random.of(Purpose::Dropout).at(self.forwards);
        self.forwards += 1;
        self.cost.forwards += images.dim(0)? as u64;
        let dropout = Dropout { random: &random, ids };
        self.model.logits(images, Mode::Train(Some(dropout)))
    }

    /// The scalar of one loss per example `[B]`: their mean, weighted by [`TeacherPredictions::weights`]. Every defense
    /// ends with it.
    pub fn mean(&mut self, losses: &Tensor) -> Result<Tensor> {
        self.weighed = true;
        self.teacher.mean(losses)
    }

    /// Whether the objective ignored the weights of the examples: it never called [`mean`](Self::mean).
    pub fn ignores_weights(&self) -> bool {
        self.teacher.weights.is_some() && !self.weighed
    }

    /// The batch's images after an attack. They are kept in [`perturbed`](Self::perturbed).
    pub fn attack(&mut self, attack: &dyn Attack, threat: &Threat) -> Result<Tensor> {
        let found = self.craft(|step| {
            let found = attack.perturb(step.model, step.batch, threat, &step.random)?;
            step.cost += found.cost;
            Ok(vec![found.images])
        })?;
        let images = found[0].clone();
        self.perturbed = Some(images.clone());
        Ok(images)
    }

    /// The result of an inner search. In the second evaluation of an objective it is the result of the first, and
    /// nothing is searched: see [`again`](Self::again). So side effects of an attack, such as the memory of an example,
    /// belong in `search`. The tensors must be detached.
    pub fn craft(&mut self, search: impl FnOnce(&mut Self) -> Result<Vec<Tensor>>) -> Result<Vec<Tensor>> {
        if let Some(next) = &mut self.next {
            let Some(found) = self.crafted.get(*next) else {
                candle_core::bail!("the objective runs more attacks in its second evaluation than in its first");
            };
            *next += 1;
            return Ok(found.clone());
        }
        let found = search(self)?;
        self.crafted.push(found.clone());
        Ok(found)
    }

    /// From here on inner attacks return their earlier results in this step, in the same order: for a second evaluation
    /// of the objective at other parameters.
    pub fn again(&mut self) {
        self.next = Some(0);
    }
}
