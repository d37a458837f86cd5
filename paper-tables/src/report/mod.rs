//! A run as one page: HTML that needs no network, sorts its tables, and can be read on a phone, in the dark, by keyboard
//! and by a screen reader.

use minijinja::context;
use minijinja::value::Serde;
use results::Flag;
use serde::Serialize;

use crate::figures::{Bar, Bars, Chart, Curve, Figure, Gallery, HeatMap, colour, shade};
use crate::shown::{percent, signed};
use crate::table::{Cell, DIFFERENT, Entry, Spread, TIED, Table};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What the page shows, in its order. Empty parts are left out.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The run's name.
    pub title: String,
    /// One sentence beneath it.
    pub subtitle: String,
    /// Numbers that come first.
    pub tiles: Vec<Item>,
    /// The tables.
    pub tables: Vec<Shown>,
    /// What may be doubted, with the marks that tables show.
    pub flags: Vec<Doubt>,
    /// Accuracy by source and target, one for each attack.
    pub heats: Vec<Heat>,
    /// Curves.
    pub charts: Vec<Picture>,
    /// What the images below show.
    pub examples_about: String,
    /// Images, before and after.
    pub examples: Vec<Gallery>,
    /// The columns of the list of cells.
    pub cell_heads: Vec<String>,
    /// Every cell of the run, whether it has a number or not.
    pub cells: Vec<CellLine>,
    /// Program, data, seeds.
    pub origin: Vec<Item>,
    /// Lists that say more of it.
    pub records: Vec<Record>,
    /// The matrix as it was written.
    pub matrix: String,
}

/// A line of the list of cells.
#[derive(Debug, Clone, Serialize)]
pub struct CellLine {
    /// `done`, `failed` or `missing`.
    pub state: &'static str,
    /// One for each column.
    pub values: Vec<Value>,
    /// The marks of its flags.
    pub marks: Vec<String>,
}

/// A plain table with a caption.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// What it lists.
    pub title: String,
    /// The columns.
    pub heads: Vec<String>,
    /// As many texts as columns in each line.
    pub lines: Vec<Vec<String>>,
}

/// A value with a name.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// Its name.
    pub label: String,
    /// The value.
    pub value: String,
}

impl Item {
    /// A value with a name.
    pub fn new(label: impl Into<String>, value: impl ToString) -> Self {
        Self {
            label: label.into(),
            value: value.to_string(),
        }
    }
}

/// A value in a list, with what it is sorted by.
#[derive(Debug, Clone, Serialize)]
pub struct Value {
    /// What is shown.
    pub text: String,
    /// What it is sorted by: a number, or text.
    pub key: String,
    /// `failed`, `missing`, `text` or nothing.
    pub class: String,
}

impl Value {
    /// Text, sorted as such.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            key: text.clone(),
            text,
            class: String::new(),
        }
    }

    /// Words, which stand to the left.
    pub fn words(text: impl Into<String>) -> Self {
        Self {
            class: "words".into(),
            ..Self::text(text)
        }
    }

    /// A number, shown in its way. `None` is shown as a dash and comes last.
    pub fn number(number: Option<f64>, show: impl Fn(f64) -> String) -> Self {
        Self {
            text: number.map_or_else(|| "—".to_string(), show),
            key: number.map_or_else(String::new, |it| it.to_string()),
            class: String::new(),
        }
    }
}

/// A table of the page.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    id: String,
    title: String,
    columns: Vec<String>,
    blocks: Vec<ShownBlock>,
    notes: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
struct ShownBlock {
    heading: String,
    lines: Vec<ShownLine>,
}

#[derive(Debug, Clone, Serialize)]
struct ShownLine {
    name: String,
    order: usize,
    cells: Vec<ShownCell>,
}

#[derive(Debug, Clone, Serialize)]
struct ShownCell {
    text: String,
    /// What it is sorted by; empty where there is no number.
    value: String,
    class: &'static str,
    spread: String,
    why: String,
    flags: Vec<Mark>,
    published: String,
    difference: String,
}

/// A flag beside a number, and a link's end for the flag's explanation.
#[derive(Debug, Clone, Serialize)]
struct Mark {
    mark: String,
    id: String,
}

/// A place of the page.
#[derive(Debug, Clone, Serialize)]
struct Place {
    href: String,
    text: String,
}

/// A doubt about a number.
#[derive(Debug, Clone, Serialize)]
pub struct Doubt {
    /// The mark in tables.
    pub mark: String,
    /// The flag's name.
    pub name: String,
    /// What it means.
    pub text: String,
    /// Where it was seen, and the numbers behind it.
    pub places: Vec<String>,
}

/// A heat map of accuracy.
#[derive(Debug, Clone, Serialize)]
pub struct Heat {
    title: String,
    targets: Vec<String>,
    lines: Vec<HeatLine>,
}

#[derive(Debug, Clone, Serialize)]
struct HeatLine {
    source: String,
    cells: Vec<HeatCell>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct HeatCell {
    text: String,
    background: String,
    ink: String,
}

/// A picture made of lines, and its numbers.
#[derive(Debug, Clone, Serialize)]
pub struct Picture {
    title: String,
    /// Trusted: nobody's input stands in it unescaped.
    svg: String,
    heads: Vec<String>,
    lines: Vec<Vec<String>>,
}

impl Picture {
    /// A chart in the colours of the page, and its numbers.
    pub fn new(chart: &Chart) -> Self {
        let mut xs: Vec<f64> = chart
            .curves
            .iter()
            .flat_map(|it| it.points.iter().map(|at| at.0))
            .collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        // Numbers for those who do not see curves; a curve of thousands of points has no use as a list.
        const LINES: usize = 60;
        let step = xs.len().div_ceil(LINES).max(1);
        let line = |x: &f64| {
            let y = |curve: &Curve| {
                let point = curve.points.iter().find(|at| at.0 == *x);
                point.map_or_else(|| "—".to_string(), |at| percent(at.1))
            };
            std::iter::once(x.to_string())
                .chain(chart.curves.iter().map(y))
                .collect()
        };
        Self {
            title: chart.title.clone(),
            svg: in_page_colours(&chart.svg()),
            heads: std::iter::once(chart.x.clone())
                .chain(chart.curves.iter().map(|it| it.label.clone()))
                .collect(),
            lines: xs.iter().step_by(step).map(line).collect(),
        }
    }

    /// Bars, likewise.
    pub fn of_bars(bars: &Bars) -> Self {
        let line = |(group, values): &(String, Vec<Option<Bar>>)| {
            let values = values
                .iter()
                .map(|it| it.map_or_else(|| "—".to_string(), |bar| percent(bar.value)));
            std::iter::once(group.clone()).chain(values).collect()
        };
        Self {
            title: bars.title.clone(),
            svg: in_page_colours(&bars.svg()),
            heads: std::iter::once("defense".to_string())
                .chain(bars.series.iter().cloned())
                .collect(),
            lines: bars.groups.iter().map(line).collect(),
        }
    }
}

/// What is black in a figure takes the text's colour, what is white the page's.
fn in_page_colours(svg: &str) -> String {
    svg.replace("#000000", "currentColor").replace("#FFFFFF", "none")
}

#[derive(Serialize)]
struct Link {
    id: &'static str,
    title: &'static str,
}

impl Report {
    /// The page.
    pub fn html(&self) -> Result<String, minijinja::Error> {
        let mut environment = minijinja::Environment::new();
        // The name says that values are escaped as HTML.
        environment.add_template("page.html", PAGE)?;
        let parts = [
            ("overview", "Overview", true),
            ("tables", "Tables", true),
            ("flags", "Flags", !self.flags.is_empty()),
            ("transfer", "Transfer", !self.heats.is_empty()),
            ("curves", "Curves", !self.charts.is_empty()),
            ("examples", "Images", !self.examples.is_empty()),
            ("cells", "Cells", true),
            ("origin", "Origin", true),
        ];
        let sections: Vec<Link> = parts
            .into_iter()
            .filter(|(_, _, there)| *there)
            .map(|(id, title, _)| Link { id, title })
            .collect();
        let page = environment.get_template("page.html")?;
        let plain = |it: Serde<&Self>| minijinja::Value::from(it);
        page.render(context! {
            sections => minijinja::Value::from(Serde(&sections)),
            marked => minijinja::Value::from(Serde(&self.marked())),
            style => STYLE,
            script => SCRIPT,
            ..plain(Serde(self))
        })
    }

    /// Of every flag, the places of tables that carry its mark.
    fn marked(&self) -> Vec<Vec<Place>> {
        let mut marked = vec![Vec::new(); self.flags.len()];
        for table in &self.tables {
            for line in table.blocks.iter().flat_map(|block| &block.lines) {
                for (cell, column) in line.cells.iter().zip(&table.columns) {
                    for mark in &cell.flags {
                        if let Some(at) = self.flags.iter().position(|it| it.mark == mark.mark) {
                            marked[at].push(Place {
                                href: format!("#{}", mark.id),
                                text: format!("{}, {column}", line.name),
                            });
                        }
                    }
                }
            }
        }
        marked
    }
}

impl Shown {
    /// A table; `mark` says how the page marks a flag.
    pub fn new(table: &Table, mark: impl Fn(Flag) -> String) -> Self {
        let line = |block: usize, order: usize, line: &crate::table::Line| ShownLine {
            name: match table.checkpoints.len() {
                0 | 1 => line.defense.clone(),
                _ => format!("{}, {}", line.defense, line.checkpoint),
            },
            order,
            cells: line
                .entries
                .iter()
                .enumerate()
                .map(|(column, entry)| shown_cell(entry, &mark, &format!("{}-{block}-{order}-{column}", table.id)))
                .collect(),
        };
        Self {
            id: table.id.clone(),
            title: table.title.clone(),
            columns: table.columns.iter().map(|it| it.label.clone()).collect(),
            blocks: table
                .blocks
                .iter()
                .enumerate()
                .map(|(at, block)| ShownBlock {
                    heading: block.heading(),
                    lines: block
                        .lines
                        .iter()
                        .enumerate()
                        .map(|(order, it)| line(at, order, it))
                        .collect(),
                })
                .collect(),
            // The page explains flags in a place of their own.
            notes: table
                .notes
                .iter()
                .filter(|note| !table.flags.iter().any(|flag| note.contains(flag.explanation())))
                .cloned()
                .collect(),
        }
    }
}

fn shown_cell(entry: &Entry, mark: &impl Fn(Flag) -> String, place: &str) -> ShownCell {
    let measured = entry.cell.measurement();
    let text = match (&entry.cell, measured) {
        (_, Some(it)) => percent(it.mean),
        (Cell::Failed { .. }, None) => "failed".to_string(),
        _ => "—".to_string(),
    };
    let spread = measured.map_or_else(String::new, |it| match it.spread {
        Spread::Deviation(deviation) => format!("± {}", percent(deviation)),
        Spread::Interval { low, high } => format!("[{low:.1}, {high:.1}]"),
    });
    let incomplete = match &entry.cell {
        Cell::Partial { planned, .. } => format!(" ({} of {planned} seeds)", measured.map_or(0, |it| it.seeds)),
        _ => String::new(),
    };
    // Flags have marks of their own on the page.
    let significance: String = [
        (entry.tied == Some(true), TIED),
        (entry.different == Some(true), DIFFERENT),
    ]
    .iter()
    .filter_map(|(there, mark)| there.then_some(*mark))
    .collect();
    ShownCell {
        text,
        value: measured.map_or_else(String::new, |it| it.mean.to_string()),
        class: match &entry.cell {
            Cell::Failed { .. } => "failed",
            Cell::Missing { .. } => "missing",
            _ if entry.highest => "best",
            _ => "",
        },
        spread: spread + &incomplete + &significance,
        why: entry.cell.reason().unwrap_or_default().to_string(),
        flags: entry
            .flags
            .iter()
            .map(|flag| mark(*flag))
            .map(|mark| Mark {
                id: format!("mark-{place}-{mark}"),
                mark,
            })
            .collect(),
        published: entry
            .published
            .as_ref()
            .map_or_else(String::new, |it| percent(it.value)),
        difference: entry.difference().map_or_else(String::new, |it| signed(it, "−")),
    }
}

impl Heat {
    /// A map in the shades of the figure.
    pub fn new(map: &HeatMap) -> Self {
        let cell = |value: &Option<f64>| {
            let Some(value) = *value else {
                return HeatCell::default();
            };
            let (ground, ink) = shade(value);
            HeatCell {
                text: percent(value),
                background: colour(ground),
                ink: colour(ink),
            }
        };
        let line = |(source, values): (&String, &Vec<Option<f64>>)| HeatLine {
            source: source.clone(),
            cells: values.iter().map(cell).collect(),
        };
        Self {
            title: map.title.clone(),
            targets: map.columns.clone(),
            lines: map.lines.iter().zip(&map.values).map(line).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
