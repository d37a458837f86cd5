//! The wide form: a line for each defense, as in the paper's tables.

use minijinja::{Value, context};

use super::escape::escape;
use super::parts::{filled, marks, notes, row};
use crate::format::{percent, signed};
use crate::spec::TableKind;
use crate::style::SpreadStyle;
use crate::table::{Block, Cell, Entry, Line, Spread, Table};

/// The table, and whether it needs a page's longer side.
pub(super) fn fragment(table: &Table) -> (String, bool) {
    let layout = Layout::of(table);
    let values = context! {
        id => table.id.clone(),
        title => escape(&table.title),
        alignment => layout.alignment(table),
        head => layout.head(table),
        blocks => table.blocks.iter().map(|block| layout.block(table, block)).collect::<Vec<_>>(),
        columns => 1 + layout.width(table),
        notes => notes(table),
    };
    let fragment = filled(include_str!("../../templates/wide.tex"), values);
    (fragment, layout.width(table) > 6)
}

/// How several checkpoints are laid out.
enum Layout {
    /// A line each.
    Lines,
    /// Side by side under each attack, as in the paper's Table 4.
    Columns,
}

impl Layout {
    fn of(table: &Table) -> Self {
        match table.kind {
            TableKind::WideNetwork if table.checkpoints.len() > 1 => Self::Columns,
            _ => Self::Lines,
        }
    }

    /// Columns after the first.
    fn width(&self, table: &Table) -> usize {
        match self {
            Self::Lines => table.columns.len(),
            Self::Columns => table.columns.len() * table.checkpoints.len(),
        }
    }

    fn alignment(&self, table: &Table) -> String {
        format!("l{}", "c".repeat(self.width(table)))
    }

    fn head(&self, table: &Table) -> Vec<String> {
        let labels = table.columns.iter().map(|column| escape(&column.label));
        let with = |first: &str, rest: Vec<String>| row([vec![first.to_string()], rest].concat());
        match self {
            Self::Lines => vec![with("Defense", labels.collect())],
            Self::Columns => {
                let span = table.checkpoints.len();
                let spans = labels.map(|label| format!("\\multicolumn{{{span}}}{{c}}{{{label}}}"));
                let rules = (0..table.columns.len()).map(|column| {
                    let first = 2 + column * span;
                    format!("\\cmidrule(lr){{{first}-{}}}", first + span - 1)
                });
                let checkpoints = table.columns.iter().flat_map(|_| &table.checkpoints);
                vec![
                    with("", spans.collect()),
                    rules.collect::<Vec<_>>().join(" "),
                    with("Defense", checkpoints.map(ToString::to_string).collect()),
                ]
            }
        }
    }

    /// The heading, and the lines as LaTeX.
    fn block(&self, table: &Table, block: &Block) -> Value {
        let groups: Vec<Vec<String>> = match self {
            Self::Lines => {
                let of_line = |line: &Line| group(table, &escape(&table.name(line)), line.entries.iter().collect());
                block.lines.iter().map(of_line).collect()
            }
            Self::Columns => block
                .lines
                .chunk_by(|a, b| a.defense == b.defense)
                .map(|lines| {
                    let columns = 0..lines[0].entries.len();
                    let entries = columns.flat_map(|column| lines.iter().map(move |line| &line.entries[column]));
                    group(table, &escape(&lines[0].defense), entries.collect())
                })
                .collect(),
        };
        context! { heading => escape(&block.heading()), groups }
    }
}

/// Our numbers and, below them, the paper's if there are any.
fn group(table: &Table, name: &str, entries: Vec<&Entry>) -> Vec<String> {
    let ours = entries
        .iter()
        .map(|entry| measured(table, entry) + &marks(&table.marks(entry)));
    let mut lines = vec![row([name.to_string()].into_iter().chain(ours))];
    if entries.iter().any(|entry| entry.published.is_some()) {
        let paper = entries.iter().map(|entry| published(entry));
        lines.push(row(["\\quad\\rampartpaper{paper}".to_string()]
            .into_iter()
            .chain(paper)));
    }
    lines
}

fn measured(table: &Table, entry: &Entry) -> String {
    let Some(measured) = entry.cell.measurement() else {
        return match entry.cell {
            Cell::Failed { .. } => "\\textit{failed}".to_string(),
            _ => "---".to_string(),
        };
    };
    // Aligns the decimal points: hardly any number reaches 100.
    let room = if measured.mean < 10.0 { "\\phantom{0}" } else { "" };
    let mean = if entry.highest && table.style.bold {
        format!("{room}\\textbf{{{}}}", percent(measured.mean))
    } else {
        format!("{room}{}", percent(measured.mean))
    };
    let spread = match (table.style.spread, measured.spread) {
        (SpreadStyle::Plain, _) => String::new(),
        (_, Spread::Deviation(deviation)) => format!("$\\pm$ {}", percent(deviation)),
        (_, Spread::Interval { low, high }) => format!("[{low:.1}, {high:.1}]"),
    };
    let incomplete = match entry.cell {
        Cell::Partial { planned, .. } => format!(" ({}/{planned})", measured.seeds),
        _ => String::new(),
    };
    match spread + &incomplete {
        nothing if nothing.is_empty() => mean,
        small => format!("{mean} \\rampartspread{{{}}}", small.trim_start()),
    }
}

fn published(entry: &Entry) -> String {
    match (&entry.published, entry.difference()) {
        (None, _) => String::new(),
        (Some(number), None) => format!("\\rampartpaper{{{}{}}}", percent(number.value), escape(number.mark())),
        (Some(number), Some(difference)) => {
            format!(
                "\\rampartpaper{{{}{} ({})}}",
                percent(number.value),
                escape(number.mark()),
                signed(difference, "$-$")
            )
        }
    }
}
