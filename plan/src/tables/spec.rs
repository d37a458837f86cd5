//! What all tables of a run show.

use paper_tables::{Planned, TableSpec};
use serde::{Deserialize, Serialize};

use super::trained::Trained;
use super::worst::{has_worst, worst_column};
use crate::cell::Evaluation;
use crate::cell_name::CellName;
use crate::plan::Plan;

/// What the tables of a run show, kept in its folder so that they can be typeset again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunTables {
    /// What each table shows.
    pub tables: Vec<TableSpec>,
    /// Lists of attacks of which the tables show the worst case.
    pub worst_of: Vec<Vec<String>>,
    /// Everything the matrix asks for, whether it ran or not.
    pub planned: Vec<Planned>,
    /// The names of all cells' folders: trainings first.
    pub cells: Vec<CellName>,
    /// What tables and figures need to know about each training. None in runs of earlier builds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trainings: Vec<Trained>,
}

impl RunTables {
    /// What a plan's tables show.
    pub fn of(plan: &Plan) -> Self {
        Self {
            tables: plan.tables.clone(),
            worst_of: plan.worst_of.clone(),
            planned: plan
                .evaluations
                .iter()
                .map(|evaluation| planned(plan, evaluation))
                .collect(),
            cells: plan.cells().map(|cell| plan.cell_name(cell)).collect(),
            trainings: plan.trainings.iter().map(Trained::of).collect(),
        }
    }

    /// A hash of what the tables show and of all cells: equal for processes that may share one folder.
    pub fn digest(&self) -> String {
        let text = serde_json::to_string(self).expect("plain data");
        blake3::hash(text.as_bytes()).to_hex()[..32].to_string()
    }

    /// How many of the cells are trainings.
    pub fn count_trainings(&self) -> usize {
        self.cells.len().saturating_sub(self.planned.len())
    }

    /// Whether a table can have a column for the worst case over several attacks.
    pub fn has_worst(&self) -> bool {
        self.tables.iter().any(|table| has_worst(table.kind))
    }

    /// Adds a column for each of these lists of attacks.
    pub fn add_worst_of(&mut self, worst_of: &[Vec<String>]) {
        for names in worst_of {
            let column = worst_column(names);
            for table in self.tables.iter_mut().filter(|table| has_worst(table.kind)) {
                if !table.columns.contains(&column) {
                    table.columns.push(column.clone());
                }
            }
            self.worst_of.push(names.clone());
        }
        self.worst_of.sort();
        self.worst_of.dedup();
    }
}

fn planned(plan: &Plan, evaluation: &Evaluation) -> Planned {
    let training = plan.target(evaluation);
    Planned {
        dataset: training.dataset.name.clone(),
        network: training.network.clone(),
        defense: training.label.clone(),
        recipe: training.recipe_label.clone(),
        seed: training.seed,
        checkpoint: evaluation.checkpoint.into(),
        attack: evaluation.label.clone(),
        kind: evaluation.kind(),
        source: evaluation.source.as_ref().map(|source| source.label.clone()),
    }
}
