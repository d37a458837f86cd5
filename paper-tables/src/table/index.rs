//! The rows, comparisons and flags of a run, indexed once for all its tables.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use results::{Checkpoint, Flag, Kind, Row};

use super::types::Ambiguous;
use crate::published::Published;
use crate::spec::{ColumnSpec, Planned, RowSpec};

/// Everything that tables are filled from. It may cover a whole matrix: a table takes only what it shows.
#[derive(Debug)]
pub struct ResultIndex<'a> {
    planned: HashMap<Place<'a>, Vec<&'a Planned>>,
    rows: HashMap<Place<'a>, Vec<&'a Row>>,
    pairs: HashMap<Group<'a>, Vec<&'a results::Comparison>>,
    flags: HashMap<String, Vec<Flag>>,
    /// The flags of all rows; the first is marked a.
    pub(crate) letters: Vec<Flag>,
    pub(crate) published: &'a Published,
    /// Student's 97.5 % quantiles by degrees of freedom, computed on demand.
    quantiles: RefCell<BTreeMap<usize, f64>>,
}

/// What identifies an evaluation, except for its recipe, source and seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place<'a> {
    pub(crate) dataset: &'a str,
    pub(crate) network: &'a str,
    pub(crate) defense: &'a str,
    pub(crate) attack: &'a str,
    pub(crate) kind: Kind,
    pub(crate) checkpoint: Checkpoint,
}

impl<'a> Place<'a> {
    /// The names are those of data set, network, defense and attack.
    fn new([dataset, network, defense, attack]: [&'a String; 4], kind: Kind, checkpoint: Checkpoint) -> Self {
        Self {
            dataset,
            network,
            defense,
            attack,
            kind,
            checkpoint,
        }
    }
}

/// Evaluations that are compared with each other, whatever their source and seed.
pub(crate) type Group<'a> = (&'a str, &'a str, &'a str, Kind, Checkpoint);

/// The row of every seed that was asked for or ran, if it has one.
pub(crate) type Seeds<'a> = BTreeMap<u64, Option<&'a Row>>;

impl<'a> ResultIndex<'a> {
    /// `planned` is everything the matrix asks for, `rows` everything that ran, and `comparisons` is what
    /// [`results::compare`] returns for those rows; without them nothing is marked as tied or different.
    pub fn new(
        planned: &'a [Planned],
        rows: &'a [Row],
        comparisons: &'a [results::Comparison],
        published: &'a Published,
    ) -> Self {
        let mut index = Self {
            planned: HashMap::new(),
            rows: HashMap::new(),
            pairs: HashMap::new(),
            flags: HashMap::new(),
            letters: Vec::new(),
            published,
            quantiles: RefCell::default(),
        };
        for evaluation in planned {
            let names = [
                &evaluation.dataset,
                &evaluation.network,
                &evaluation.defense,
                &evaluation.attack,
            ];
            let place = Place::new(names, evaluation.kind, evaluation.checkpoint);
            index.planned.entry(place).or_default().push(evaluation);
        }
        for row in rows {
            let names = [&row.dataset, &row.network, &row.defense, &row.attack];
            let place = Place::new(names, row.kind, row.checkpoint);
            index.rows.entry(place).or_default().push(row);
        }
        for comparison in comparisons {
            let group = (
                &comparison.dataset[..],
                &comparison.network[..],
                &comparison.attack[..],
                comparison.kind,
                comparison.checkpoint,
            );
            index.pairs.entry(group).or_default().push(comparison);
        }
        let raised = results::flags(rows);
        index.letters = results::letters(&raised);
        for raised in raised {
            index.flags.entry(raised.cell).or_default().push(raised.flag);
        }
        index
    }

    /// Every seed that was asked for or ran.
    pub(crate) fn seeds(
        &self,
        place: Place<'_>,
        row: &RowSpec,
        column: &ColumnSpec,
        table: &str,
    ) -> Result<Seeds<'a>, Ambiguous> {
        let admits = |recipe: &str, source: &Option<String>| {
            row.recipe.as_deref().is_none_or(|wanted| wanted == recipe)
                && (column.source.is_none() || column.source == *source)
        };
        let mut seeds = BTreeMap::new();
        for evaluation in self.planned.get(&place).into_iter().flatten() {
            if admits(&evaluation.recipe, &evaluation.source) {
                seeds.insert(evaluation.seed, None);
            }
        }
        for found in self.rows.get(&place).into_iter().flatten() {
            if !admits(&found.recipe, &found.source) {
                continue;
            }
            if let Some(Some(other)) = seeds.insert(found.seed, Some(*found)) {
                return Err(Ambiguous {
                    table: table.to_string(),
                    place: format!(
                        "{} under {} ({}, {}, {}, seed {})",
                        found.defense, found.attack, found.dataset, found.network, found.checkpoint, found.seed
                    ),
                    cells: [other.cell.clone(), found.cell.clone()],
                });
            }
        }
        Ok(seeds)
    }

    /// The flags of a row.
    pub(crate) fn flags(&self, row: &Row) -> &[Flag] {
        self.flags.get(&row.cell).map_or(&[], Vec::as_slice)
    }

    /// The comparisons of a group.
    pub(crate) fn pairs<'s>(&'s self, group: Group<'s>) -> &'s [&'a results::Comparison] {
        self.pairs.get(&group).map_or(&[], Vec::as_slice)
    }

    /// Student's two-sided 95 % quantile for this number of values. Panics for fewer than two.
    pub(crate) fn quantile(&self, values: usize) -> f64 {
        let freedom = values - 1;
        let mut known = self.quantiles.borrow_mut();
        *known
            .entry(freedom)
            .or_insert_with(|| results::student_quantile(0.05, freedom as f64))
    }
}
