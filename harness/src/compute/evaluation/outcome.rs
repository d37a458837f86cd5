//! What an evaluation found.

use attacks::{Cost, Progress};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::warnings::Warnings;

/// What an evaluation found, example by example.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Evaluated {
    pub(crate) outcomes: Vec<Outcome>,
    /// The attack's own passes.
    #[serde(with = "cost")]
    pub(crate) cost: Cost,
    pub(crate) max_delta: f64,
    pub(crate) zero_gradients: u64,
    #[serde(rename = "doubts")]
    pub(crate) warnings: Warnings,
    /// The attacked images that were asked for, batch by batch on the CPU.
    #[serde(skip)]
    pub(crate) images: Vec<Tensor>,
}

/// The outcome of one example.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outcome {
    pub(crate) example: u64,
    pub(crate) label: u32,
    pub(crate) predicted_clean: u32,
    pub(crate) predicted: u32,
    pub(crate) delta: f32,
    /// What a query attack asked: in all, and until success.
    pub(crate) queries: Option<(u64, Option<u64>)>,
}

impl Evaluated {
    /// Examples still classified correctly.
    pub(crate) fn correct(&self) -> u64 {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.predicted == outcome.label)
            .count() as u64
    }

    /// The share of examples still classified correctly.
    pub(crate) fn accuracy(&self) -> f64 {
        self.correct() as f64 / self.outcomes.len() as f64
    }

    /// The share of examples classified correctly before the attack.
    pub(crate) fn clean_accuracy(&self) -> f64 {
        let correct = self
            .outcomes
            .iter()
            .filter(|outcome| outcome.predicted_clean == outcome.label)
            .count();
        correct as f64 / self.outcomes.len() as f64
    }

    /// The outcomes as they are stored.
    pub(crate) fn stored(&self, cell: &str) -> Vec<results::Outcome> {
        let stored = self.outcomes.iter().map(|outcome| results::Outcome {
            cell: cell.to_string(),
            example: outcome.example,
            label: outcome.label,
            predicted_clean: Some(outcome.predicted_clean),
            predicted: outcome.predicted,
            correct: outcome.predicted == outcome.label,
            delta: outcome.delta,
            queries: outcome.queries.map(|(asked, _)| asked),
            queries_until_success: outcome.queries.and_then(|(_, until)| until),
        });
        stored.collect()
    }

    /// The row with the results filled in. `budget`: queries that the attack may ask about one image.
    pub(crate) fn complete(&self, row: results::Row, budget: Option<u64>) -> results::Row {
        let row = results::Row {
            forwards: Some(self.cost.forwards),
            backwards: Some(self.cost.backwards),
            max_delta: Some(self.max_delta),
            zero_gradients: Some(self.zero_gradients),
            vanishing_gradients: self.warnings.vanishing_gradients,
            random_outputs: self.warnings.random_outputs,
            softmax_outputs: self.warnings.softmax_outputs,
            ..row
        };
        let asked: Option<u64> = self.outcomes.iter().map(|outcome| Some(outcome.queries?.0)).sum();
        let row = match asked {
            Some(asked) if !self.outcomes.is_empty() => {
                let until = self.outcomes.iter().filter_map(|outcome| outcome.queries?.1);
                row.with_queries(asked, budget, &until.collect::<Vec<_>>())
            }
            _ => row,
        };
        row.with_count(self.outcomes.len() as u64, self.correct())
    }
}

impl Evaluated {
    /// Adds the results on further examples.
    pub(super) fn add(&mut self, more: Self) {
        self.outcomes.extend(more.outcomes);
        self.cost += more.cost;
        self.max_delta = self.max_delta.max(more.max_delta);
        self.zero_gradients += more.zero_gradients;
        self.warnings += more.warnings;
        self.images.extend(more.images);
    }
}

/// The progress of AutoAttack within a batch, and its cost so far.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) progress: Progress,
    pub(crate) cost: Cost,
}

/// Passes as plain data.
pub(super) mod cost {
    use attacks::Cost;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(cost: &Cost, serializer: S) -> Result<S::Ok, S::Error> {
        [cost.forwards, cost.backwards].serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cost, D::Error> {
        let [forwards, backwards] = <[u64; 2]>::deserialize(deserializer)?;
        Ok(Cost { forwards, backwards })
    }
}
