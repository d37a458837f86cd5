//! Out of rows to a table.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use results::{Checkpoint, Flag, Kind, Row, Status};

use super::{Ambiguous, Block, Cell, Comparison, Entry, Heading, Line, Measurement, Spread, Table};
use crate::notes::notes;
use crate::published::{Published, Query};
use crate::spec::{ColumnSpec, Planned, RowSpec, TableSpec};

impl Table {
    /// Fills a table. `planned` is everything the matrix asks for and `rows` is everything that
    /// ran; whatever the table does not show is skipped, so both may be those of the whole matrix.
    pub fn build(
        spec: &TableSpec,
        planned: &[Planned],
        rows: &[Row],
        published: &Published,
    ) -> Result<Self, Ambiguous> {
        let index = Index::new(planned, rows);
        let mut raised: HashMap<String, Vec<Flag>> = HashMap::new();
        for it in results::flags(rows) {
            raised.entry(it.cell).or_default().push(it.flag);
        }
        let mut shown = Vec::new();
        let mut blocks = Vec::new();
        for block in &spec.blocks {
            let first = shown.len();
            let mut lines = Vec::new();
            for row in &spec.rows {
                for &checkpoint in &spec.checkpoints {
                    let mut entries = Vec::new();
                    for column in &spec.columns {
                        let place = Place {
                            dataset: &block.dataset,
                            network: &block.network,
                            defense: &row.defense,
                            attack: &column.attack,
                            kind: column.kind,
                            checkpoint,
                        };
                        let seeds = index.seeds(place, row, column, &spec.id)?;
                        shown.extend(seeds.values().filter_map(|it| *it));
                        let compared = row.published.as_deref().zip(column.published.as_deref());
                        let found = compared.and_then(|(method, attack)| {
                            published.find(Query {
                                table: spec.kind,
                                dataset: &block.dataset,
                                network: &block.network,
                                method,
                                column: attack,
                                checkpoint,
                            })
                        });
                        let flags = seeds.values().filter_map(|it| raised.get(&(*it)?.cell));
                        let flags: BTreeSet<Flag> = flags.flatten().copied().collect();
                        entries.push(Entry {
                            cell: cell(&seeds),
                            flags: flags.into_iter().collect(),
                            published: found.map(|(number, citation)| Comparison {
                                value: number.value,
                                citation: citation.text.clone(),
                                note: citation.note.clone(),
                            }),
                            highest: false,
                        });
                    }
                    lines.push(Line {
                        defense: row.defense.clone(),
                        checkpoint,
                        entries,
                    });
                }
            }
            mark_highest(&mut lines, &spec.checkpoints, spec.columns.len());
            blocks.push(Block {
                label: block.label.clone(),
                dataset: block.dataset.clone(),
                network: block.network.clone(),
                verified: shown[first..].iter().all(|row: &&Row| row.verified),
                lines,
            });
        }
        let mut table = Self {
            id: spec.id.clone(),
            title: spec.title.clone(),
            kind: spec.kind,
            columns: spec.columns.iter().map(heading).collect(),
            checkpoints: spec.checkpoints.clone(),
            blocks,
            flags: Vec::new(),
            notes: Vec::new(),
        };
        let flags: BTreeSet<Flag> = table.entries().flat_map(|entry| entry.flags.iter().copied()).collect();
        table.flags = flags.into_iter().collect();
        table.notes = notes(&table, &shown);
        Ok(table)
    }
}

fn heading(column: &ColumnSpec) -> Heading {
    Heading {
        label: column.label.clone(),
        kind: column.kind,
    }
}

/// Where an evaluation belongs, but for its recipe, source and seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place<'a> {
    dataset: &'a str,
    network: &'a str,
    defense: &'a str,
    attack: &'a str,
    kind: Kind,
    checkpoint: Checkpoint,
}

/// Plans and rows by place.
struct Index<'a> {
    planned: HashMap<Place<'a>, Vec<&'a Planned>>,
    rows: HashMap<Place<'a>, Vec<&'a Row>>,
}

impl<'a> Index<'a> {
    fn new(planned: &'a [Planned], rows: &'a [Row]) -> Self {
        let mut index = Self {
            planned: HashMap::new(),
            rows: HashMap::new(),
        };
        for it in planned {
            let place = Place {
                dataset: &it.dataset,
                network: &it.network,
                defense: &it.defense,
                attack: &it.attack,
                kind: it.kind,
                checkpoint: it.checkpoint,
            };
            index.planned.entry(place).or_default().push(it);
        }
        for it in rows {
            let place = Place {
                dataset: &it.dataset,
                network: &it.network,
                defense: &it.defense,
                attack: &it.attack,
                kind: it.kind,
                checkpoint: it.checkpoint,
            };
            index.rows.entry(place).or_default().push(it);
        }
        index
    }

    /// Every seed that was asked for or ran, with its row if it has one.
    fn seeds(
        &self,
        place: Place<'_>,
        row: &RowSpec,
        column: &ColumnSpec,
        table: &str,
    ) -> Result<BTreeMap<u64, Option<&'a Row>>, Ambiguous> {
        let admits = |recipe: &str, source: &Option<String>| {
            row.recipe.as_deref().is_none_or(|it| it == recipe) && (column.source.is_none() || column.source == *source)
        };
        let mut seeds = BTreeMap::new();
        for it in self.planned.get(&place).into_iter().flatten() {
            if admits(&it.recipe, &it.source) {
                seeds.insert(it.seed, None);
            }
        }
        for it in self.rows.get(&place).into_iter().flatten() {
            if !admits(&it.recipe, &it.source) {
                continue;
            }
            if let Some(Some(other)) = seeds.insert(it.seed, Some(*it)) {
                return Err(Ambiguous {
                    table: table.to_string(),
                    place: format!(
                        "{} under {} ({}, {}, {}, seed {})",
                        it.defense, it.attack, it.dataset, it.network, it.checkpoint, it.seed
                    ),
                    cells: [other.cell.clone(), it.cell.clone()],
                });
            }
        }
        Ok(seeds)
    }
}

fn cell(seeds: &BTreeMap<u64, Option<&Row>>) -> Cell {
    let planned = seeds.len();
    let rows = || seeds.values().filter_map(|it| *it);
    let done: Vec<(&Row, f64)> = rows()
        .filter(|row| row.status == Status::Done)
        .filter_map(|row| Some((row, row.accuracy? * 100.0)))
        .collect();
    let failed = rows().count() - done.len();
    let reason = rows()
        .find(|row| row.status == Status::Failed || row.accuracy.is_none())
        .map(|row| {
            row.error
                .clone()
                .unwrap_or_else(|| "no image was evaluated".to_string())
        });
    let values: Vec<f64> = done.iter().map(|(_, value)| *value).collect();
    let Some(mean) = results::mean(&values) else {
        return match reason {
            Some(reason) => Cell::Failed { planned, reason },
            None => Cell::Missing { planned },
        };
    };
    let first = done[0].0;
    let spread = match results::sample_deviation(&values) {
        Some(deviation) => Spread::Deviation(deviation),
        None => Spread::Interval {
            low: first.accuracy_low.map_or(mean, |it| it * 100.0),
            high: first.accuracy_high.map_or(mean, |it| it * 100.0),
        },
    };
    let measurement = Measurement {
        mean,
        spread,
        seeds: done.len(),
        images: done.iter().filter_map(|(row, _)| row.n).min().unwrap_or(0),
        forwards: passes(&done, |row| row.forwards_per_image),
        backwards: passes(&done, |row| row.backwards_per_image),
    };
    if done.len() == planned {
        Cell::Measured(measurement)
    } else {
        Cell::Partial {
            measurement,
            planned,
            failed,
            reason,
        }
    }
}

fn passes(done: &[(&Row, f64)], of: fn(&Row) -> Option<f64>) -> Option<f64> {
    let known: Vec<f64> = done.iter().filter_map(|(row, _)| of(row)).collect();
    results::mean(&known)
}

/// Equal as shown, to two decimals, is equally high. Where all are equal, or alone, none is highest.
fn mark_highest(lines: &mut [Line], checkpoints: &[Checkpoint], columns: usize) {
    let shown = |entry: &Entry| match &entry.cell {
        Cell::Measured(measurement) => Some((measurement.mean * 100.0).round() as i64),
        _ => None,
    };
    for &checkpoint in checkpoints {
        for column in 0..columns {
            let of_checkpoint = lines.iter().filter(|line| line.checkpoint == checkpoint);
            let values: Vec<i64> = of_checkpoint.filter_map(|line| shown(&line.entries[column])).collect();
            let highest = values.iter().max().copied();
            if highest == values.iter().min().copied() {
                continue;
            }
            for line in lines.iter_mut().filter(|line| line.checkpoint == checkpoint) {
                let entry = &mut line.entries[column];
                entry.highest = shown(entry) == highest;
            }
        }
    }
}
