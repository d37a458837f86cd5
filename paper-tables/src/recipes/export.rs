//! The recipes as Markdown and LaTeX.

use minijinja::context;

use super::table::{NAMES, Recipes};
use crate::latex::{self, Latex};
use crate::markdown;

const TITLE: &str = "Training recipes";

impl Recipes {
    /// For readers: a table of the settings that differ, and a list of those that do not.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {TITLE}\n\n");
        let grid = self.grid();
        // Each part of a wide table begins with the first column, so that must name the line.
        let names = grid[0].iter().take_while(|head| NAMES.contains(&head.as_str())).count();
        let named = |line: &Vec<String>| {
            let texts = [line[..names].join(", ")]
                .into_iter()
                .chain(line[names..].iter().cloned());
            texts.map(|text| markdown::escape(&text)).collect()
        };
        let grid: Vec<Vec<String>> = grid.iter().map(named).collect();
        for columns in markdown::chunks(&grid, markdown::WIDTH) {
            markdown::render(&mut text, &grid, &columns);
            text.push('\n');
        }
        for (name, shared) in self.shared() {
            markdown::wrap(
                &mut text,
                &format!("{name}: {shared} (the same for all)"),
                markdown::WIDTH,
            );
        }
        text
    }

    /// For papers: a `longtable` whose columns wrap.
    pub fn latex(&self, form: Latex) -> String {
        let grid = self.grid();
        let row = |line: &Vec<String>| {
            line.iter()
                .map(|text| latex::escape(text))
                .collect::<Vec<_>>()
                .join(" & ")
        };
        let shared = self.shared().into_iter();
        let notes: Vec<String> = shared
            .map(|(name, text)| format!("{}: {}", latex::escape(name), latex::escape(&text)))
            .collect();
        let remark = latex::remark(
            &grid
                .iter()
                .flatten()
                .map(|text| latex::escape(text))
                .collect::<String>(),
        );
        let alignment: String = widths(&grid)
            .into_iter()
            .map(|width| format!(r">{{\raggedright\arraybackslash}}p{{{width:.3}\linewidth}}"))
            .collect();
        let fragment = latex::filled(
            include_str!("../../templates/recipes.tex"),
            context! {
                title => TITLE, alignment,
                head => row(&grid[0]), lines => grid[1..].iter().map(row).collect::<Vec<_>>(), notes, remark,
            },
        );
        form.complete(fragment, "array, booktabs and longtable", grid[0].len() > 4)
    }
}

/// Shares of a line's width: a column of long texts is wider, but not in proportion, since they wrap.
fn widths(grid: &[Vec<String>]) -> Vec<f64> {
    let longest = |column: usize| grid.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let wanted: Vec<f64> = (0..grid[0].len())
        .map(|column| (longest(column) as f64).clamp(6.0, 48.0))
        .collect();
    let sum: f64 = wanted.iter().sum();
    // The rest is for the spaces between columns.
    wanted.iter().map(|width| 0.92 * width / sum).collect()
}
