//! A filled table before it has a format.

use results::{Checkpoint, Flag, Kind, Selection};

use crate::protocol::Difference;
use crate::spec::TableKind;
use crate::style::TableStyle;

/// A table ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The name in files and in references.
    pub id: String,
    /// The title.
    pub title: String,
    /// Which table of the paper it mirrors.
    pub kind: TableKind,
    /// How it is styled.
    pub style: TableStyle,
    /// The columns.
    pub columns: Vec<Heading>,
    /// The checkpoints, of which every defense has a line each.
    pub checkpoints: Vec<Checkpoint>,
    /// One part per data set and network.
    pub blocks: Vec<Block>,
    /// The flags that numbers of this table carry.
    pub flags: Vec<Flag>,
    /// The flags of the whole run: the first is marked a, the next b, in every table and on the page.
    pub letters: Vec<Flag>,
    /// Footnotes: sentences of plain text.
    pub notes: Vec<String>,
}

impl Table {
    /// All places of the table.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.blocks
            .iter()
            .flat_map(|block| &block.lines)
            .flat_map(|line| &line.entries)
    }

    /// The marks of an entry: the letters of its flags, then [`TIED`] and [`DIFFERENT`].
    pub(crate) fn marks(&self, entry: &Entry) -> Vec<char> {
        let letters = entry.flags.iter().map(|flag| self.letter(*flag));
        let tied = (entry.tied == Some(true)).then_some(TIED);
        let different = (entry.different == Some(true)).then_some(DIFFERENT);
        letters.chain(tied).chain(different).collect()
    }

    /// The letter that marks a flag.
    pub fn letter(&self, flag: Flag) -> char {
        let marked = self.letters.iter().zip('a'..='z').find(|(known, _)| **known == flag);
        marked.map_or('?', |(_, letter)| letter)
    }

    /// What names a line: the defense, and the checkpoint where there are several.
    pub(crate) fn name(&self, line: &Line) -> String {
        match self.checkpoints.len() {
            0 | 1 => line.defense.clone(),
            _ => format!("{}, {}", line.defense, line.checkpoint),
        }
    }
}

/// Marks a number that is not significantly below the highest of its column.
pub(crate) const TIED: char = '†';
/// Marks a number that differs significantly from that of the defense with which the table compares.
pub(crate) const DIFFERENT: char = '*';

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

/// One place of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What we measured.
    pub cell: Cell,
    /// What was published, where it is shown.
    pub published: Option<PublishedNumber>,
    /// Whether a published number is not shown because the row's protocol differs from its own.
    pub withheld: bool,
    /// Whether ours is the highest complete accuracy of its column, block and checkpoint.
    pub highest: bool,
    /// Whether it is not significantly below the highest. `None`: it is the highest, or was not tested.
    pub tied: Option<bool>,
    /// Whether it differs significantly from the number of the defense with which the table compares. `None`: it is that
    /// number, there is none, or it was not tested.
    pub different: Option<bool>,
    /// Why ours may be too high: the flags of any of its seeds.
    pub flags: Vec<Flag>,
    /// The adversary's bound, such as `L∞, ε = 8/255`. `None` on clean images, and where nothing ran.
    pub threat: Option<String>,
    /// Which images chose the checkpoint. `None` where nothing ran.
    pub selection: Option<Selection>,
}

impl Entry {
    /// Ours minus the published, in percentage points.
    pub fn difference(&self) -> Option<f64> {
        Some(self.cell.measurement()?.mean - self.published.as_ref()?.value)
    }
}

/// A published number.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedNumber {
    /// In percent.
    pub value: f64,
    /// Its source.
    pub citation: String,
    /// What to keep in mind when comparing, and where the protocol was read.
    pub notes: Vec<String>,
    /// In what the row's protocol differs from the published one.
    pub differences: Vec<Difference>,
}

impl PublishedNumber {
    /// `≠` where protocols differ.
    pub(crate) fn mark(&self) -> &'static str {
        if self.differences.is_empty() { "" } else { "≠" }
    }
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
        /// Why the first of them failed.
        reason: Option<String>,
    },
    /// No seed is done and at least one failed.
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
    /// The uncertainty, as the table's style shows it; the plain style shows none.
    pub spread: Spread,
    /// The sample standard deviation over seeds. `None` for one seed.
    pub deviation: Option<f64>,
    /// Lower end of the 95 % interval: of the mean over seeds, or of one seed over images.
    pub low: f64,
    /// Upper end of the same interval.
    pub high: f64,
    /// How many seeds.
    pub seeds: usize,
    /// Images per seed; the fewest where seeds differ.
    pub images: u64,
    /// The attack's forward passes per image, over seeds.
    pub forwards: Option<f64>,
    /// The attack's backward passes per image, over seeds.
    pub backwards: Option<f64>,
}

/// The uncertainty of an accuracy, in percentage points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spread {
    /// Over seeds: the sample standard deviation.
    Deviation(f64),
    /// The 95 % interval: of one seed, over images, Wilson's; of the mean over seeds, Student's.
    Interval {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
}

/// Two results for the same seed of one cell.
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
