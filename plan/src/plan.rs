//! Every cell of a matrix, and what its tables will show.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use paper_tables::TableSpec;
use serde_json::{Value, json};

use crate::cell::{Cell, Evaluation, Training};
use crate::cell_name::{CELLS, CellName};
use crate::matrix::{Checkpoint, DatasetEntry};

/// All cells of a matrix. Evaluations refer to trainings by index, trainings to earlier ones.
#[derive(Debug, Default)]
pub struct Plan {
    /// The matrix's name, which names the folder of the run.
    pub name: String,
    /// Every network to train. A teacher comes before the trainings that use it.
    pub trainings: Vec<Training>,
    /// Every checkpoint under every attack.
    pub evaluations: Vec<Evaluation>,
    /// What each table will show.
    pub tables: Vec<TableSpec>,
    /// Lists of attacks of which the tables show the worst case.
    pub worst_of: Vec<Vec<String>>,
    /// The data set of every comparison, as it is cut.
    datasets: Vec<DatasetEntry>,
    /// Index of every training and evaluation by its key.
    indices: HashMap<String, usize>,
    /// Key of the evaluation that fills each place of the tables.
    places: HashMap<Place, String>,
}

/// How tables distinguish evaluations: target, checkpoint, label, and source with its checkpoint.
type Place = (usize, Checkpoint, String, Option<(usize, Checkpoint)>);

impl Plan {
    /// An empty plan.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_string(),
            ..Self::default()
        }
    }

    /// The training whose network an evaluation attacks.
    pub fn target(&self, evaluation: &Evaluation) -> &Training {
        &self.trainings[evaluation.target]
    }

    /// The cells that must be finished before this one.
    pub fn parents(&self, cell: Cell) -> Vec<Cell> {
        match cell {
            Cell::Training(i) => {
                let teacher = self.trainings[i].supervision.teacher.as_ref();
                teacher
                    .map(|teacher| Cell::Training(teacher.training))
                    .into_iter()
                    .collect()
            }
            Cell::Evaluation(i) => {
                let evaluation = &self.evaluations[i];
                let source = evaluation.source.as_ref().map(|source| source.training);
                [Some(evaluation.target), source]
                    .into_iter()
                    .flatten()
                    .map(Cell::Training)
                    .collect()
            }
        }
    }

    /// Every cell, trainings first.
    pub fn cells(&self) -> impl Iterator<Item = Cell> {
        let trainings = (0..self.trainings.len()).map(Cell::Training);
        trainings.chain((0..self.evaluations.len()).map(Cell::Evaluation))
    }

    /// A cell's key and readable name.
    pub fn identity(&self, cell: Cell) -> (&str, &str) {
        match cell {
            Cell::Training(i) => (&self.trainings[i].key, &self.trainings[i].slug),
            Cell::Evaluation(i) => (&self.evaluations[i].key, &self.evaluations[i].slug),
        }
    }

    /// A cell's resolved configuration, as the text of which its key is the hash.
    pub fn config_text(&self, cell: Cell) -> &str {
        match cell {
            Cell::Training(i) => &self.trainings[i].config,
            Cell::Evaluation(i) => &self.evaluations[i].config,
        }
    }

    /// A cell's resolved configuration.
    pub fn config(&self, cell: Cell) -> Value {
        serde_json::from_str(self.config_text(cell)).expect("a configuration is JSON")
    }

    /// A cell for programs: kind, key, name, the keys of its parents, and its resolved configuration.
    pub fn describe(&self, cell: Cell) -> Value {
        let (key, slug) = self.identity(cell);
        let parents = self.parents(cell);
        let needs: Vec<&str> = parents.iter().map(|parent| self.identity(*parent).0).collect();
        json!({ "kind": cell.kind(), "key": key, "name": slug, "needs": needs, "config": self.config(cell) })
    }

    /// The name of a cell's folder.
    pub fn cell_name(&self, cell: Cell) -> CellName {
        let (key, slug) = self.identity(cell);
        CellName::new(key, slug)
    }

    /// The path of a cell's folder in the run's folder `root`.
    pub fn folder(&self, root: &Path, cell: Cell) -> PathBuf {
        root.join(CELLS).join(self.cell_name(cell))
    }

    /// The selected evaluations and the trainings they need, parents first.
    pub fn needed(&self, selected: &[usize]) -> Vec<Cell> {
        let mut cells: BTreeSet<Cell> = selected.iter().map(|&i| Cell::Evaluation(i)).collect();
        let mut children: Vec<Cell> = cells.iter().copied().collect();
        while let Some(child) = children.pop() {
            let new = self.parents(child).into_iter().filter(|&parent| cells.insert(parent));
            children.extend(new);
        }
        // Trainings come before evaluations, and a teacher before the trainings that use it.
        cells.into_iter().collect()
    }

    /// The data sets of all cells, each as it is cut, without repeats.
    pub fn datasets(&self) -> Vec<&DatasetEntry> {
        let trained = self.trainings.iter().map(|training| &training.dataset);
        let attacked = self.evaluations.iter().map(|evaluation| &evaluation.dataset);
        let mut seen = HashSet::new();
        // A comparison whose cells are another's as well still has its own entry.
        let all = self.datasets.iter().chain(trained).chain(attacked);
        all.filter(|entry| seen.insert(*entry)).collect()
    }

    /// Adds the data set of a comparison.
    pub(crate) fn add_dataset(&mut self, entry: &DatasetEntry) {
        self.datasets.push(entry.clone());
    }

    /// Adds a training, unless its key is there already. Returns its index.
    pub(crate) fn add_training(&mut self, training: Training) -> usize {
        if let Some(known) = self.indices.get(&training.key) {
            return *known;
        }
        self.indices.insert(training.key.clone(), self.trainings.len());
        self.trainings.push(training);
        self.trainings.len() - 1
    }

    /// Adds an evaluation, unless its key is there already.
    ///
    /// # Errors
    /// The tables have one place for two evaluations, or two places for one evaluation.
    pub(crate) fn add_evaluation(&mut self, evaluation: Evaluation) -> Result<(), Conflict> {
        let source = evaluation
            .source
            .as_ref()
            .map(|source| (source.training, source.checkpoint));
        let place = (
            evaluation.target,
            evaluation.checkpoint,
            evaluation.label.clone(),
            source,
        );
        let key = self.places.entry(place).or_insert_with(|| evaluation.key.clone());
        if *key != evaluation.key {
            return Err(Conflict::Place);
        }
        match self.indices.get(&evaluation.key) {
            None => {
                self.indices.insert(evaluation.key.clone(), self.evaluations.len());
                self.evaluations.push(evaluation);
                Ok(())
            }
            Some(known) => match &self.evaluations[*known].label {
                label if *label == evaluation.label => Ok(()),
                label => Err(Conflict::Label(label.clone())),
            },
        }
    }
}

/// Why an evaluation has no place of its own.
#[derive(Debug)]
pub(crate) enum Conflict {
    /// Another evaluation of the same network has its label.
    Place,
    /// It is there already, under this label.
    Label(String),
}
