//! Fills a table from rows.

use std::collections::BTreeSet;

use results::{Flag, Row, Selection, Status};

use super::index::{Place, ResultIndex, Seeds};
use super::marks::mark;
use super::notes::{notes, threat_of};
use super::types::{Ambiguous, Block, Cell, Entry, Heading, Line, Measurement, PublishedNumber, Spread, Table};
use crate::published::Query;
use crate::spec::{BlockSpec, ColumnSpec, RowSpec, TableSpec};
use crate::style::{PublishedRule, SpreadStyle};

impl Table {
    /// Fills a table. Fails if two results belong to the same seed and place.
    pub fn build(spec: &TableSpec, index: &ResultIndex<'_>) -> Result<Self, Ambiguous> {
        let mut shown = Vec::new();
        let mut blocks = Vec::new();
        for block in &spec.blocks {
            let first = shown.len();
            let mut lines = Vec::new();
            for row in &spec.rows {
                for &checkpoint in &spec.checkpoints {
                    let filler = Filler {
                        spec,
                        block,
                        row,
                        index,
                    };
                    let entry = |column| filler.entry(column, checkpoint, &mut shown);
                    lines.push(Line {
                        defense: row.defense.clone(),
                        checkpoint,
                        entries: spec.columns.iter().map(entry).collect::<Result<_, _>>()?,
                    });
                }
            }
            mark(&mut lines, spec, block, index);
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
            style: spec.style.clone(),
            columns: spec.columns.iter().map(heading).collect(),
            checkpoints: spec.checkpoints.clone(),
            blocks,
            flags: Vec::new(),
            letters: index.letters.clone(),
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

/// Fills the places of one line.
struct Filler<'s, 'e> {
    spec: &'s TableSpec,
    block: &'s BlockSpec,
    row: &'s RowSpec,
    index: &'s ResultIndex<'e>,
}

impl<'e> Filler<'_, 'e> {
    /// One place of the table; the rows it is computed from are added to `shown`.
    fn entry(
        &self,
        column: &ColumnSpec,
        checkpoint: results::Checkpoint,
        shown: &mut Vec<&'e Row>,
    ) -> Result<Entry, Ambiguous> {
        let place = Place {
            dataset: &self.block.dataset,
            network: &self.block.network,
            defense: &self.row.defense,
            attack: &column.attack,
            kind: column.kind,
            checkpoint,
        };
        let seeds = self.index.seeds(place, self.row, column, &self.spec.id)?;
        let rows = || seeds.values().filter_map(|row| *row);
        shown.extend(rows());
        let (published, withheld) = self.published(column, checkpoint, rows());
        let flags: BTreeSet<Flag> = rows().flat_map(|row| self.index.flags(row)).copied().collect();
        let threats: BTreeSet<String> = rows().filter_map(threat_of).collect();
        let selections: BTreeSet<Selection> = rows().map(|row| row.selection).collect();
        Ok(Entry {
            cell: cell(&seeds, self.spec.style.spread, self.index),
            flags: flags.into_iter().collect(),
            published,
            withheld,
            highest: false,
            tied: None,
            different: None,
            threat: (!threats.is_empty()).then(|| threats.into_iter().collect::<Vec<_>>().join("; ")),
            // If seeds differ, the selection that inflates accuracy most.
            selection: selections
                .iter()
                .find(|selection| **selection == Selection::Test)
                .or(selections.first())
                .copied(),
        })
    }
}

impl<'e> Filler<'_, 'e> {
    /// The published number of a place, if it is shown, and whether one is withheld because protocols differ.
    fn published(
        &self,
        column: &ColumnSpec,
        checkpoint: results::Checkpoint,
        rows: impl Iterator<Item = &'e Row>,
    ) -> (Option<PublishedNumber>, bool) {
        let compared = self.row.published.as_deref().zip(column.published.as_deref());
        let Some((method, attack)) = compared.filter(|_| self.spec.style.published != PublishedRule::None) else {
            return (None, false);
        };
        let published = self.index.published;
        let found = published.find(Query {
            table: self.spec.kind,
            dataset: &self.block.dataset,
            network: &self.block.network,
            method,
            column: attack,
            checkpoint,
        });
        let mut rows = rows.peekable();
        // Nothing has run, so there is nothing to compare.
        let Some((number, citation)) = found.filter(|_| rows.peek().is_some()) else {
            return (None, false);
        };
        let mut differences = BTreeSet::new();
        let protocol = published.protocol(citation);
        if let Some(protocol) = protocol {
            rows.for_each(|row| differences.extend(protocol.differences(row, method, attack)));
        }
        if !differences.is_empty() && self.spec.style.published == PublishedRule::Matching {
            return (None, true);
        }
        let number = PublishedNumber {
            value: number.value,
            citation: citation.text.clone(),
            notes: [Some(&citation.note), protocol.map(|protocol| &protocol.source)]
                .into_iter()
                .flatten()
                .filter(|note| !note.is_empty())
                .cloned()
                .collect(),
            differences: differences.into_iter().collect(),
        };
        (Some(number), false)
    }
}

fn cell(seeds: &Seeds<'_>, style: SpreadStyle, index: &ResultIndex<'_>) -> Cell {
    let planned = seeds.len();
    let rows = || seeds.values().filter_map(|row| *row);
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
    let Some(measurement) = measurement(&done, style, index) else {
        return match reason {
            Some(reason) => Cell::Failed { planned, reason },
            None => Cell::Missing { planned },
        };
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

/// The mean over the seeds that are done, if any, and its uncertainty.
fn measurement(done: &[(&Row, f64)], style: SpreadStyle, index: &ResultIndex<'_>) -> Option<Measurement> {
    let values: Vec<f64> = done.iter().map(|(_, value)| *value).collect();
    let mean = results::mean(&values)?;
    let deviation = results::sample_deviation(&values);
    let (low, high) = match deviation {
        // mean ± t · s / √n, as far as an accuracy can be.
        Some(deviation) => {
            let half = index.quantile(values.len()) * deviation / (values.len() as f64).sqrt();
            ((mean - half).max(0.0), (mean + half).min(100.0))
        }
        None => {
            let end = |value: Option<f64>| value.map_or(mean, |share| share * 100.0);
            (end(done[0].0.accuracy_low), end(done[0].0.accuracy_high))
        }
    };
    Some(Measurement {
        mean,
        spread: match (style, deviation) {
            (SpreadStyle::MeanSd | SpreadStyle::Plain, Some(deviation)) => Spread::Deviation(deviation),
            _ => Spread::Interval { low, high },
        },
        deviation,
        low,
        high,
        seeds: done.len(),
        images: done.iter().filter_map(|(row, _)| row.n).min().unwrap_or(0),
        forwards: passes(done, |row| row.forwards_per_image),
        backwards: passes(done, |row| row.backwards_per_image),
    })
}

fn passes(done: &[(&Row, f64)], of: fn(&Row) -> Option<f64>) -> Option<f64> {
    let known: Vec<f64> = done.iter().filter_map(|(row, _)| of(row)).collect();
    results::mean(&known)
}
