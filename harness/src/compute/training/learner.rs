//! What a training changes: the weights, their average, the optimizer, and what the defense remembers of examples.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use attacks::{Batch, Cost};
use candle_core::{DType, Device, Tensor};
use defenses::{Descent, Memory, Step, TeacherPredictions, clip_gradients};
use models::Network;
use plan::Training;
use random::Stream;
use serde::Serialize;
use storage::checkpoint;

use super::checkpoints::{build, prefixed};
use crate::compute::training_set::check_weights;
use crate::failure::Failure;

/// A network in training and everything that a step changes.
pub(super) struct Learner {
    network: Network,
    /// The averaged weights, if the recipe averages: a network of their own.
    average: Option<Network>,
    optimizer: Box<dyn Descent>,
    memory: Memory,
}

/// What one step came to.
pub(super) struct Made {
    /// The objective. If it is not finite, nothing was changed.
    pub(super) loss: f32,
    pub(super) cost: Cost,
}

impl Learner {
    /// At the beginning, for this many training examples.
    pub(super) fn new(cell: &Training, examples: usize, device: &Device) -> Result<Self, Failure> {
        let network = build(cell, device)?;
        let average = cell.recipe.averaging.map(|_| build(cell, device)).transpose()?;
        Ok(Self {
            optimizer: cell.recipe.optimizer.over(network.parameters()),
            memory: cell.defense.method.memory(examples),
            network,
            average,
        })
    }

    /// One step on a batch, at this learning rate, with what a teacher says of it. `epoch` counts from 0.
    pub(super) fn step(
        &mut self,
        cell: &Training,
        batch: &Batch,
        teacher: TeacherPredictions,
        random: Stream,
        epoch: u64,
        rate: f64,
    ) -> Result<Made, Failure> {
        let (network, recipe, defense) = (&self.network, &cell.recipe, cell.defense.method.as_ref());
        let mut step = Step::new(network, batch, &cell.setting.threat, random, epoch, &mut self.memory);
        step.teacher = teacher;
        let (objective, moved) = match recipe.awp.filter(|awp| awp.moves_in(epoch)) {
            Some(awp) => {
                let (objective, moved) = awp.objective(|step| defense.objective(step), &mut step, network)?;
                (objective, Some(moved))
            }
            None => (defense.objective(&mut step)?, None),
        };
        check_weights(cell, &step)?;
        let mut cost = step.cost;
        cost.backwards += batch.ids.len() as u64;
        let loss: f32 = objective.to_dtype(DType::F32)?.to_scalar()?;
        if loss.is_finite() {
            let mut gradients = objective.backward()?;
            if let Some(largest) = recipe.clip_gradient {
                clip_gradients(network.parameters(), &mut gradients, largest)?;
            }
            self.optimizer.step(&gradients, rate)?;
        }
        if let Some(moved) = moved {
            moved.back()?;
        }
        if let (Some(averaging), Some(average), true) = (&recipe.averaging, &self.average, loss.is_finite()) {
            averaging.update(average, network, epoch)?;
        }
        Ok(Made { loss, cost })
    }

    /// The network that is evaluated and kept: the average, if there is one.
    pub(super) fn evaluated(&self) -> &Network {
        self.average.as_ref().unwrap_or(&self.network)
    }

    /// Saves all of it, with the training's position.
    pub(super) fn save(&self, file: &Path, at: &impl Serialize) -> Result<(), Failure> {
        let mut tensors = prefixed("model.", self.network.state()?);
        if let Some(average) = &self.average {
            tensors.extend(prefixed("average.", average.state()?));
        }
        tensors.extend(prefixed("optimizer.", self.optimizer.state()));
        for (name, column) in &self.memory.columns {
            let column = Tensor::new(column.as_slice(), &Device::Cpu)?;
            tensors.insert(format!("memory.{name}"), column);
        }
        Ok(checkpoint::save_sealed(file, &tensors, at)?)
    }

    /// Takes up what [`save`](Self::save) left in a file.
    pub(super) fn restore(&mut self, file: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<(), Failure> {
        let foreign = || {
            format!(
                "{} belongs to another training; delete it and run again",
                file.display()
            )
        };
        let load = |network: &Network, prefix: &str| {
            network
                .load_state(&checkpoint::part(tensors, prefix))
                .with_context(foreign)
        };
        load(&self.network, "model.")?;
        if let Some(average) = &self.average {
            load(average, "average.")?;
        }
        self.optimizer
            .restore(&checkpoint::part(tensors, "optimizer."))
            .with_context(foreign)?;
        for (name, column) in checkpoint::part(tensors, "memory.") {
            self.memory.columns.insert(name, column.to_vec1()?);
        }
        Ok(())
    }
}
