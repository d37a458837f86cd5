//! A finished run: its rows, and what its tables show.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use paper_tables::{
    Chart, Planned, Published, Recipes, ResultIndex, Table, TableKind, TableSpec, TableStyle, TrainedConfig,
};
use plan::CellName;
use plan::tables::{RunTables, StyleChanges, Trained, worst_label};
use results::{Comparison, Kind, Row, is_called};

use crate::exit::Stop;
use crate::table_specs;

/// What tables show beyond what their run's folder says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Additional columns in every table of attacks on the networks themselves.
    pub(crate) worst_of: Vec<Vec<String>>,
    /// The style of all tables.
    pub(crate) style: StyleChanges,
}

/// A run's folder and what its tables show.
#[derive(Debug)]
pub(crate) struct FinishedRun {
    pub(super) spec: RunTables,
    /// Lists of attacks of which the command line wants the worst case.
    asked: Vec<Vec<String>>,
    /// Of every cell.
    pub(crate) folders: Vec<PathBuf>,
    /// The place in `folders` of each cell, by the part of its key that names the folder.
    by_key: HashMap<String, usize>,
}

impl FinishedRun {
    /// Reads what a matrix left in a run's folder.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let spec = table_specs::read(root)?;
        let folders: Vec<PathBuf> = spec.cells.iter().map(|name| root.join("cells").join(name)).collect();
        let keys = spec.cells.iter().map(|name| name.key_digits().to_string());
        Ok(Self {
            by_key: keys.zip(0..).collect(),
            asked: Vec::new(),
            spec,
            folders,
        })
    }

    /// Shows what is asked for beyond what the folder says.
    pub(super) fn change(&mut self, changes: &Changes) -> Result<()> {
        if !changes.worst_of.is_empty() && !self.spec.has_worst() {
            return Err(Stop::usage(
                "--worst-of: this run has no table for it; add `summary` or `white-box` to the matrix's `tables`",
            ));
        }
        self.spec.add_worst_of(&changes.worst_of);
        self.asked.clone_from(&changes.worst_of);
        plan::tables::restyle(&mut self.spec.tables, &changes.style).map_err(Stop::usage)
    }

    /// Every training with its folder.
    pub(crate) fn trainings(&self) -> impl Iterator<Item = (&Trained, &PathBuf)> {
        self.spec.trainings.iter().zip(&self.folders)
    }

    /// What each table shows.
    pub(super) fn specs(&self) -> &[TableSpec] {
        &self.spec.tables
    }

    /// How many trainings the matrix asks for.
    pub(super) fn count_trainings(&self) -> usize {
        self.spec.count_trainings()
    }

    /// How the networks were trained.
    pub(crate) fn recipes(&self) -> Recipes {
        Recipes::of(self.spec.trainings.iter().map(|trained| TrainedConfig {
            dataset: &trained.dataset,
            network: &trained.network,
            defense: &trained.defense,
            recipe: &trained.recipe,
            seed: trained.seed,
            config: &trained.config,
        }))
    }

    /// Everything the matrix asks for, with the name of its cell's folder.
    pub(crate) fn planned(&self) -> impl Iterator<Item = (&Planned, &CellName)> {
        let evaluations = &self.spec.cells[self.spec.count_trainings()..];
        self.spec.planned.iter().zip(evaluations)
    }

    /// The place of a row's cell in `folders`.
    fn place(&self, row: &Row) -> Option<usize> {
        row.cell
            .get(..CellName::KEY_DIGITS)
            .and_then(|key| self.by_key.get(key))
            .copied()
    }

    /// The folder of a row's cell.
    pub(crate) fn folder(&self, row: &Row) -> Option<&Path> {
        self.place(row).map(|place| self.folders[place].as_path())
    }

    /// The folder of a cell.
    pub(super) fn folder_of(&self, cell: &CellName) -> Option<&Path> {
        let place = self.by_key.get(cell.key_digits())?;
        Some(self.folders[*place].as_path())
    }

    /// Puts rows, which are stored by name, into the order of the matrix, in which figures and comparisons show them.
    pub(crate) fn order(&self, rows: &mut [Row]) {
        rows.sort_by_key(|row| self.place(row));
    }

    /// The outcome of every image in an evaluation.
    pub(super) fn outcomes(&self, row: &Row) -> Result<Vec<results::Outcome>> {
        let folder = self
            .folder(row)
            .with_context(|| format!("cell {} has no folder", row.cell))?;
        Ok(results::read_outcomes(&folder.join(results::OUTCOMES_FILE))?)
    }

    /// Every pair of defenses that were attacked in the same way.
    pub(crate) fn comparisons(&self, rows: &[Row]) -> Result<Vec<Comparison>> {
        results::compare(rows, |row| self.outcomes(row))
    }

    /// Accuracy over radii and success over queries, where the matrix asks for enough of them.
    pub(crate) fn charts(&self, rows: &[Row]) -> Result<Vec<Chart>> {
        let mut charts = paper_tables::epsilon_charts(rows);
        charts.extend(paper_tables::query_charts(rows, |row| self.outcomes(row))?);
        Ok(charts)
    }

    /// The tables. `comparisons` are those of the rows.
    pub(crate) fn tables(&self, stored: &[Row], comparisons: &[Comparison]) -> Result<Vec<Table>> {
        self.built(&self.spec.tables, stored, comparisons)
    }

    /// What the page's first sentences are about: the tables of attacks on the networks themselves, or else the first, in
    /// the style that compares each defense with the best. Each network is in one of them alone.
    pub(super) fn main_tables(&self, stored: &[Row], comparisons: &[Comparison]) -> Result<Vec<Table>> {
        let direct = |table: &&TableSpec| !matches!(table.kind, TableKind::BlackBox | TableKind::Transfer);
        let mut wanted: Vec<&TableSpec> = self.spec.tables.iter().filter(direct).collect();
        if wanted.is_empty() {
            wanted.extend(self.spec.tables.first());
        }
        let mut known = HashSet::new();
        let specs = wanted.into_iter().map(|spec| {
            let blocks = spec.blocks.iter();
            let new = blocks.filter(|block| known.insert((&block.dataset, &block.network)));
            TableSpec {
                style: TableStyle::default(),
                blocks: new.cloned().collect(),
                ..spec.clone()
            }
        });
        let specs: Vec<TableSpec> = specs.collect();
        self.built(&specs, stored, comparisons)
    }

    /// The labels of worst cases over several attacks.
    pub(super) fn worst_labels(&self) -> Vec<String> {
        self.spec.worst_of.iter().map(|names| worst_label(names)).collect()
    }

    fn built(&self, specs: &[TableSpec], stored: &[Row], comparisons: &[Comparison]) -> Result<Vec<Table>> {
        let mut planned = self.spec.planned.clone();
        let mut rows = stored.to_vec();
        for names in &self.spec.worst_of {
            let label = worst_label(names);
            let of_first: Vec<Planned> = planned
                .iter()
                .filter(|planned| is_called(planned.kind, &planned.attack, &names[0]))
                .cloned()
                .collect();
            planned.extend(of_first.into_iter().map(|planned| Planned {
                attack: label.clone(),
                kind: Kind::WhiteBox,
                source: None,
                ..planned
            }));
            match results::worst_of(stored, names, &label, |row| self.outcomes(row).map_err(Worst::Other)) {
                Ok(worst) => rows.extend(worst),
                // A matrix whose attacks have not run yet has tables all the same.
                Err(Worst::NotThere(_)) if stored.is_empty() || !self.asked.contains(names) => {}
                Err(Worst::NotThere(error)) => return Err(Stop::usage(format!("--worst-of: {error}"))),
                Err(Worst::Other(error)) => return Err(error),
            }
        }
        let index = ResultIndex::new(&planned, &rows, comparisons, Published::embedded());
        let built: Result<Vec<Table>, _> = specs.iter().map(|table| Table::build(table, &index)).collect();
        built.context("the matrix leaves open what a place of a table shows")
    }
}

/// Why there is no worst case.
enum Worst {
    NotThere(results::UnknownAttack),
    Other(anyhow::Error),
}

impl From<results::UnknownAttack> for Worst {
    fn from(error: results::UnknownAttack) -> Self {
        Self::NotThere(error)
    }
}
