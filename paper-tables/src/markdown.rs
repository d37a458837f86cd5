//! Markdown with aligned columns, made to be read in a terminal.

use std::fmt::Write as _;

use crate::exporter::Exporter;
use crate::format::{percent, signed, superscript};
use crate::long_form;
use crate::style::{Form, SpreadStyle};
use crate::table::{Block, Cell, Entry, Spread, Table};

/// How wide tables are unless asked otherwise, in characters.
pub(crate) const WIDTH: usize = 120;

/// Markdown no wider than `width` where that is possible: a table with too many columns
/// continues in a second one below it.
#[derive(Debug, Clone, Copy)]
pub struct Markdown {
    /// In characters.
    pub width: usize,
}

impl Default for Markdown {
    fn default() -> Self {
        Self { width: WIDTH }
    }
}

impl Exporter for Markdown {
    fn extension(&self) -> &'static str {
        "md"
    }

    fn export(&self, table: &Table) -> String {
        let mut text = format!("## {}\n", table.title);
        for block in &table.blocks {
            write!(text, "\n### {}\n", block.heading()).expect("writing to a string succeeds");
            let grid = match table.style.form() {
                Form::Wide => wide(table, block),
                Form::Long => long(table, block),
            };
            for columns in chunks(&grid, self.width) {
                text.push('\n');
                render(&mut text, &grid, &columns);
            }
        }
        if !table.notes.is_empty() {
            text.push('\n');
        }
        for note in &table.notes {
            wrap(&mut text, &note.replace('*', "\\*"), self.width);
        }
        text
    }
}

/// Cells by line and column; the first line is the head, the first column the defense.
fn wide(table: &Table, block: &Block) -> Vec<Vec<String>> {
    let mut head = vec!["defense".to_string()];
    head.extend(table.columns.iter().map(|column| escape(&column.label)));
    let mut grid = vec![head];
    for line in &block.lines {
        let mut ours = vec![escape(&table.name(line))];
        ours.extend(
            line.entries
                .iter()
                .map(|entry| measured(table, entry) + &marks(&table.marks(entry))),
        );
        grid.push(ours);
        if line.entries.iter().any(|entry| entry.published.is_some()) {
            let mut paper = vec!["  paper".to_string()];
            paper.extend(line.entries.iter().map(published));
            grid.push(paper);
        }
    }
    grid
}

/// The same for the long form.
fn long(table: &Table, block: &Block) -> Vec<Vec<String>> {
    let mut grid = vec![long_form::heads(table).into_iter().map(str::to_string).collect()];
    for line in long_form::lines(table, block) {
        let mean = if line.bold {
            format!("**{}**", line.mean)
        } else {
            line.mean
        };
        let mut cells: Vec<String> = line.names.iter().map(|name| escape(name)).collect();
        cells.push(mean + &marks(&line.marks));
        cells.extend(line.numbers);
        grid.push(cells);
    }
    grid
}

/// Letters above the line, after a space.
fn marks(letters: &[char]) -> String {
    let raised: String = letters
        .iter()
        .map(|&letter| match letter {
            '*' => "\\*".to_string(),
            letter => superscript(letter).to_string(),
        })
        .collect();
    if raised.is_empty() {
        raised
    } else {
        format!(" {raised}")
    }
}

fn measured(table: &Table, entry: &Entry) -> String {
    let Some(measured) = entry.cell.measurement() else {
        return match entry.cell {
            Cell::Failed { .. } => "failed".to_string(),
            _ => "—".to_string(),
        };
    };
    let mean = if entry.highest && table.style.bold {
        format!("**{}**", percent(measured.mean))
    } else {
        percent(measured.mean)
    };
    let spread = match (table.style.spread, measured.spread) {
        (SpreadStyle::Plain, _) => String::new(),
        (_, Spread::Deviation(deviation)) => format!(" ± {}", percent(deviation)),
        (_, Spread::Interval { low, high }) => format!(" [{low:.1}, {high:.1}]"),
    };
    let incomplete = match entry.cell {
        Cell::Partial { planned, .. } => format!(" ({}/{planned})", measured.seeds),
        _ => String::new(),
    };
    format!("{mean}{spread}{incomplete}")
}

fn published(entry: &Entry) -> String {
    match (&entry.published, entry.difference()) {
        (None, _) => String::new(),
        (Some(number), None) => percent(number.value) + number.mark(),
        (Some(number), Some(difference)) => {
            let mark = number.mark();
            format!("{}{mark} ({})", percent(number.value), signed(difference, "−"))
        }
    }
}

/// The columns of each table that a grid is cut into, so that none is wider than `width` where that is possible. Each
/// begins with the first column.
pub(crate) fn chunks(grid: &[Vec<String>], width: usize) -> Vec<Vec<usize>> {
    let first = column_width(grid, 0) + 4;
    let mut chunks = vec![vec![0]];
    let mut used = first;
    for column in 1..grid[0].len() {
        let wanted = column_width(grid, column) + 3;
        let chunk = chunks.last_mut().expect("there is a chunk");
        if used + wanted > width && chunk.len() > 1 {
            chunks.push(vec![0, column]);
            used = first + wanted;
        } else {
            chunk.push(column);
            used += wanted;
        }
    }
    chunks
}

/// Some columns of a grid, whose first line is the head.
pub(crate) fn render(text: &mut String, grid: &[Vec<String>], columns: &[usize]) {
    let widths: Vec<usize> = columns.iter().map(|&column| column_width(grid, column)).collect();
    for (index, line) in grid.iter().enumerate() {
        for (&column, width) in columns.iter().zip(&widths) {
            write!(text, "| {:<width$} ", line[column]).expect("writing to a string succeeds");
        }
        text.push_str("|\n");
        if index == 0 {
            for width in &widths {
                write!(text, "|{}", "-".repeat(width + 2)).expect("writing to a string succeeds");
            }
            text.push_str("|\n");
        }
    }
}

fn column_width(grid: &[Vec<String>], column: usize) -> usize {
    grid.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
}

/// A list item, broken between words.
pub(crate) fn wrap(text: &mut String, note: &str, width: usize) {
    let mut used = 1;
    text.push('-');
    for word in note.split_whitespace() {
        let length = word.chars().count();
        if used + 1 + length > width && used > 1 {
            text.push_str("\n ");
            used = 1;
        }
        text.push(' ');
        text.push_str(word);
        used += 1 + length;
    }
    text.push('\n');
}

/// Text inside of a table.
pub(crate) fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn every_kind_of_cell() {
        insta::assert_snapshot!(Markdown::default().export(&fixtures::white_box()));
    }

    #[test]
    fn best_and_last() {
        insta::assert_snapshot!(Markdown::default().export(&fixtures::wide()));
    }

    #[test]
    fn transfer() {
        insta::assert_snapshot!(Markdown::default().export(&fixtures::black_box()));
    }

    #[test]
    fn long_form() {
        insta::assert_snapshot!(Markdown::default().export(&fixtures::long()));
    }

    #[test]
    fn tied_with_the_highest() {
        insta::assert_snapshot!(Markdown::default().export(&fixtures::marked(None)));
    }

    #[test]
    fn against_a_defense() {
        insta::assert_snapshot!(Markdown::default().export(&fixtures::marked(Some("Standard"))));
    }

    #[test]
    fn no_line_is_too_long() {
        for width in [60, 80, 100, 120] {
            for table in fixtures::all() {
                let text = Markdown { width }.export(&table);
                for line in text.lines() {
                    assert!(line.chars().count() <= width, "{line}");
                }
            }
        }
    }
}
