//! A table before it has a format: every cell's number, or why there is none.

use std::collections::{BTreeMap, HashMap};

use results::{Checkpoint, Kind, Row, Status};

use crate::notes::notes;
use crate::published::{Published, Query};
use crate::spec::{ColumnSpec, Planned, RowSpec, TableKind, TableSpec};

/// A table ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The name in files and in references.
    pub id: String,
    /// The title.
    pub title: String,
    /// Which table of the paper it mirrors.
    pub kind: TableKind,
    /// The columns.
    pub columns: Vec<Heading>,
    /// The checkpoints, of which every defense has a line each.
    pub checkpoints: Vec<Checkpoint>,
    /// One part per data set and network.
    pub blocks: Vec<Block>,
    /// Footnotes: sentences of plain text.
    pub notes: Vec<String>,
}

/// The head of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// What is shown.
    pub label: String,
    /// Natural, white-box or transfer.
    pub kind: Kind,
}

/// A part of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// What is shown above it.
    pub label: String,
    /// The data set's name.
    pub dataset: String,
    /// The network's name.
    pub network: String,
    /// Whether every row of this block was computed from verified data.
    pub verified: bool,
    /// Its lines: defense by defense, and checkpoint by checkpoint.
    pub lines: Vec<Line>,
}

impl Block {
    /// The label, and a warning where the data are not verified.
    pub fn heading(&self) -> String {
        let warning = if self.verified { "" } else { " (unverified data)" };
        format!("{}{warning}", self.label)
    }
}

/// One defense's checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The defense's label.
    pub defense: String,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// One per column.
    pub entries: Vec<Entry>,
}

/// What stands at one place of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What we measured.
    pub cell: Cell,
    /// What was published.
    pub published: Option<Comparison>,
    /// Whether ours is the highest complete accuracy of its column, block and checkpoint.
    pub highest: bool,
}

impl Entry {
    /// Ours minus the published, in percentage points.
    pub fn difference(&self) -> Option<f64> {
        Some(self.cell.measurement()?.mean - self.published.as_ref()?.value)
    }
}

/// A published number.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// In percent.
    pub value: f64,
    /// Its source.
    pub citation: String,
    /// What a reader who compares must know.
    pub note: String,
}

/// What we measured at one place of a table, over seeds.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Every seed is done.
    Measured(Measurement),
    /// Only some seeds are done.
    Partial {
        /// Over those that are done.
        measurement: Measurement,
        /// How many seeds were asked for.
        planned: usize,
        /// How many of them failed.
        failed: usize,
        /// Why the first of those failed.
        reason: Option<String>,
    },
    /// No seed is done and one failed at least.
    Failed {
        /// How many seeds were asked for.
        planned: usize,
        /// Why the first of them failed.
        reason: String,
    },
    /// Nothing ran.
    Missing {
        /// How many seeds were asked for: 0 where the matrix does not ask for this cell.
        planned: usize,
    },
}

impl Cell {
    /// The number, complete or not.
    pub const fn measurement(&self) -> Option<&Measurement> {
        match self {
            Self::Measured(measurement) | Self::Partial { measurement, .. } => Some(measurement),
            Self::Failed { .. } | Self::Missing { .. } => None,
        }
    }

    /// Why the first seed that failed did.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Partial { reason, .. } => reason.as_deref(),
            Self::Failed { reason, .. } => Some(reason),
            Self::Measured(_) | Self::Missing { .. } => None,
        }
    }

    /// `measured`, `partial`, `failed` or `missing`.
    pub const fn status(&self) -> &'static str {
        match self {
            Self::Measured(_) => "measured",
            Self::Partial { .. } => "partial",
            Self::Failed { .. } => "failed",
            Self::Missing { .. } => "missing",
        }
    }

    /// How many seeds were asked for.
    pub const fn planned(&self) -> usize {
        match self {
            Self::Measured(measurement) => measurement.seeds,
            Self::Partial { planned, .. } | Self::Failed { planned, .. } | Self::Missing { planned } => *planned,
        }
    }
}

/// An accuracy in percent.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// The mean over seeds.
    pub mean: f64,
    /// How sure it is.
    pub spread: Spread,
    /// How many seeds.
    pub seeds: usize,
    /// Images per seed; the fewest where seeds differ.
    pub images: u64,
}

/// How sure an accuracy is, in percentage points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spread {
    /// Over seeds: the sample standard deviation.
    Deviation(f64),
    /// Of one seed, over images: the 95 % Wilson interval.
    Interval {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
}

/// Two results for one seed of one cell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "table `{table}` has two results for {place}: cells `{}` and `{}`; \
     name the recipe or the source, or give the two different labels",
    cells[0], cells[1]
)]
pub struct Ambiguous {
    /// The table.
    pub table: String,
    /// Defense, attack, data set, network, checkpoint and seed.
    pub place: String,
    /// The two cells.
    pub cells: [String; 2],
}

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
                        entries.push(Entry {
                            cell: cell(&seeds),
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
            notes: Vec::new(),
        };
        table.notes = notes(&table, &shown);
        Ok(table)
    }

    /// All places of the table.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.blocks
            .iter()
            .flat_map(|block| &block.lines)
            .flat_map(|line| &line.entries)
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::samples::{row, white_box};
    use crate::spec::BlockSpec;
    use crate::{Csv, Exporter, Latex, Markdown};

    fn entry(table: &Table, block: usize, defense: &str, column: &str) -> Entry {
        let line = table.blocks[block]
            .lines
            .iter()
            .find(|it| it.defense == defense)
            .unwrap();
        let place = table.columns.iter().position(|it| it.label == column).unwrap();
        line.entries[place].clone()
    }

    #[test]
    fn a_number_is_never_made_up() {
        let table = white_box();
        let cell = |defense, column| entry(&table, 0, defense, column).cell;
        let Cell::Measured(natural) = cell("Standard", "Natural") else {
            panic!("not measured");
        };
        // Seeds give 84.0, 84.2 and 84.4 %.
        assert!((natural.mean - 84.2).abs() < 1e-9);
        let Spread::Deviation(deviation) = natural.spread else {
            panic!("three seeds have a deviation");
        };
        assert!((deviation - 0.2).abs() < 1e-9);
        assert_eq!((natural.seeds, natural.images), (3, 10_000));
        let failed = Cell::Failed {
            planned: 3,
            reason: "loss is not finite in epoch 3".to_string(),
        };
        assert_eq!(cell("ALP", "CW∞"), failed);
        assert_eq!(cell("TRADES", "AutoAttack"), Cell::Missing { planned: 3 });
        let Cell::Partial {
            measurement,
            planned,
            failed,
            ..
        } = cell("MART", "CW∞")
        else {
            panic!("not partial");
        };
        assert_eq!((measurement.seeds, planned, failed), (1, 3, 2));
        assert_eq!(cell("MART", "CW∞").reason(), Some("out of memory"));
        let Cell::Partial {
            measurement,
            planned,
            failed,
            ..
        } = cell("MART", "AutoAttack")
        else {
            panic!("not partial");
        };
        assert_eq!((measurement.seeds, planned, failed), (2, 3, 0));
    }

    #[test]
    fn one_seed_shows_the_interval_over_images() {
        let Cell::Measured(it) = entry(&white_box(), 1, "Standard", "Natural").cell else {
            panic!("not measured");
        };
        let expected = results::wilson(336, 400).unwrap();
        let Spread::Interval { low, high } = it.spread else {
            panic!("one seed has no deviation");
        };
        assert!((low - expected.low * 100.0).abs() < 1e-9 && (high - expected.high * 100.0).abs() < 1e-9);
    }

    #[test]
    fn ours_stands_beside_the_published() {
        let table = white_box();
        let mart = entry(&table, 0, "MART", "PGD-20");
        assert_eq!(mart.published.as_ref().unwrap().value, 55.57);
        assert!((mart.difference().unwrap() - (67.2 - 55.57)).abs() < 1e-9);
        assert_eq!(entry(&table, 0, "ALP", "PGD-20").published, None);
        assert_eq!(entry(&table, 1, "MART", "PGD-20").published, None);
        assert_eq!(entry(&table, 0, "ALP", "CW∞").difference(), None);
    }

    #[test]
    fn only_complete_cells_can_be_highest() {
        let table = white_box();
        assert!(entry(&table, 0, "MART", "Natural").highest);
        assert!(!entry(&table, 0, "Standard", "Natural").highest);
        // MART's is higher, from one seed of three.
        assert!(entry(&table, 0, "TRADES", "CW∞").highest);
        assert!(!entry(&table, 0, "MART", "CW∞").highest);
    }

    #[test]
    fn unverified_data_are_named_in_every_format() {
        let table = white_box();
        assert_eq!((table.blocks[0].verified, table.blocks[1].verified), (true, false));
        let exporters: [&dyn Exporter; 4] = [&Csv, &Markdown::default(), &Latex::Document, &Latex::Fragment];
        for exporter in exporters {
            assert!(
                exporter.export(&table).contains("unverified data"),
                "{}",
                exporter.extension()
            );
        }
    }

    fn spec(blocks: &[(&str, &str)], defenses: &[String], attacks: &[String]) -> TableSpec {
        TableSpec {
            id: "white-box".to_string(),
            title: "White-box".to_string(),
            kind: TableKind::WhiteBox,
            blocks: blocks
                .iter()
                .map(|(dataset, network)| BlockSpec {
                    label: format!("{dataset}, {network}"),
                    dataset: dataset.to_string(),
                    network: network.to_string(),
                })
                .collect(),
            rows: defenses
                .iter()
                .map(|defense| RowSpec {
                    defense: defense.clone(),
                    recipe: None,
                    published: None,
                })
                .collect(),
            columns: attacks
                .iter()
                .map(|attack| ColumnSpec {
                    label: attack.clone(),
                    attack: attack.clone(),
                    kind: Kind::WhiteBox,
                    source: None,
                    published: None,
                })
                .collect(),
            checkpoints: vec![Checkpoint::Best, Checkpoint::Last],
        }
    }

    #[test]
    fn two_results_for_one_seed_are_refused_unless_told_apart() {
        let mut spec = spec(&[("digits", "lenet")], &["MART".to_string()], &["PGD".to_string()]);
        let place = ["digits", "lenet", "MART", "PGD"];
        let one = row(place, Kind::WhiteBox, Checkpoint::Best, 0).with_count(10, 7);
        let mut two = one.clone();
        two.recipe = "long".to_string();
        two.cell = "other".to_string();
        let rows = [one, two];
        let error = Table::build(&spec, &[], &rows, &Published::none()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "table `white-box` has two results for MART under PGD (digits, lenet, best, seed 0): cells \
             `digits-lenet-MART-PGD-best-0` and `other`; name the recipe or the source, or give the two different labels"
        );
        spec.rows[0].recipe = Some("long".to_string());
        let table = Table::build(&spec, &[], &rows, &Published::none()).unwrap();
        assert_eq!(table.blocks[0].lines[0].entries[0].cell.planned(), 1);
    }

    #[test]
    fn ten_thousand_rows_take_no_time() {
        let names = |what: &str, n: usize| (0..n).map(|k| format!("{what} {k}")).collect::<Vec<_>>();
        let (defenses, attacks) = (names("defense", 25), names("attack", 20));
        let blocks = [("cifar10", "resnet18"), ("mnist", "lenet")];
        let mut rows = Vec::new();
        for (dataset, network) in blocks {
            for defense in &defenses {
                for attack in &attacks {
                    for checkpoint in [Checkpoint::Best, Checkpoint::Last] {
                        for seed in 0..5 {
                            let place = [dataset, network, defense, attack];
                            rows.push(row(place, Kind::WhiteBox, checkpoint, seed).with_count(10_000, 5_000 + seed));
                        }
                    }
                }
            }
        }
        assert_eq!(rows.len(), 10_000);
        let planned: Vec<Planned> = rows.iter().map(Planned::of).collect();
        let spec = spec(&blocks, &defenses, &attacks);
        let exporters: [&dyn Exporter; 3] = [&Csv, &Markdown::default(), &Latex::Document];
        let once = || {
            let start = Instant::now();
            let table = Table::build(&spec, &planned, &rows, Published::embedded()).unwrap();
            let length: usize = exporters.iter().map(|it| it.export(&table).len()).sum();
            assert!(length > 100_000);
            start.elapsed()
        };
        // The best of three, for the machine may be busy.
        let taken = (0..3).map(|_| once()).min().unwrap();
        assert!(taken < Duration::from_millis(200), "took {taken:?}");
    }
}
