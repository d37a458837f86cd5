//! From the cells on disk to the tables of a run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use paper_tables::{Chart, Csv, Exporter, Latex, Markdown, Planned, Published, ResultIndex, Table};
use plan::tables::{RunTables, StyleChanges, Trained, worst_label};
use plan::{KEY_DIGITS, Plan};
use results::{Comparison, Kind, PerExample, Row, is_called};

use crate::exit::Stop;
use crate::figures;
use crate::files;

const SPEC: &str = "tables.json";
/// The folder of typeset tables, in a run's.
pub(crate) const FOLDER: &str = "tables";

/// Notes in the run's folder what its tables show.
pub(crate) fn write_spec(root: &Path, plan: &Plan) -> Result<()> {
    files::write_sealed(&root.join(SPEC), &RunTables::of(plan))
}

/// The names of a run's cells, trainings first, and how many of them are trainings.
pub(crate) fn cells(root: &Path) -> Result<(Vec<String>, usize)> {
    let spec = read_spec(root)?;
    let trainings = spec.count_trainings();
    Ok((spec.cells, trainings))
}

/// The spec in a run's folder, which may be anybody's: what it names must lie in that folder.
fn read_spec(root: &Path) -> Result<RunTables> {
    let file = root.join(SPEC);
    let spec: Option<RunTables> = files::read_sealed(&file)?;
    if let Some(spec) = &spec {
        let cells = spec.cells.iter().map(|cell| &cell[..]);
        let mut names = cells.chain(spec.tables.iter().map(|table| &table.id[..]));
        if let Some(name) = names.find(|name| !files::is_plain(name)) {
            return Err(Stop::usage(format!(
                "{} names `{}`, which does not lie in that folder",
                file.display(),
                name.escape_debug()
            )));
        }
    }
    spec.ok_or_else(|| {
        Stop::usage(format!(
            "{} is not the folder of a run; runs are kept in `runs/` unless --out says otherwise",
            root.display()
        ))
    })
}

/// What tables show beyond what their run's folder says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// Columns more, in every table of attacks on the networks themselves.
    pub(crate) worst_of: Vec<Vec<String>>,
    /// The style of all tables.
    pub(crate) style: StyleChanges,
}

/// Combines the rows of all finished cells, writes every table in every format, flags, comparisons and figures, and
/// returns the tables in Markdown.
pub(crate) fn write(root: &Path, changes: &Changes) -> Result<String> {
    derive(root, root, changes)
}

/// As [`write`], but with everything that follows from the cells of `root` written to the folder `into`.
pub(crate) fn derive(root: &Path, into: &Path, changes: &Changes) -> Result<String> {
    let mut run = Run::read(root)?;
    let before = run.spec.clone();
    run.change(changes)?;
    let mut rows = results::combine(into, &run.folders, PerExample::Combine)?;
    run.order(&mut rows);
    let folder = into.join(FOLDER);
    files::make_folder(&folder)?;
    results::write_flags(&folder.join("flags.csv"), &results::flags(&rows))?;
    let comparisons = run.comparisons(&rows)?;
    results::write_comparisons(&folder.join("significance.csv"), &comparisons)?;
    files::write_part(
        &folder.join("significance.md"),
        paper_tables::significance(&comparisons).as_bytes(),
    )?;
    for figure in figures::all(&run, &rows)? {
        for (extension, text) in [("csv", figure.csv()), ("svg", figure.svg()), ("tex", figure.tex())] {
            let name = format!("{}.{extension}", figure.id());
            files::write_part(&folder.join(name), text.as_bytes())?;
        }
    }
    let mut texts = Vec::new();
    for table in run.tables(&rows, &comparisons)? {
        let exporters: [&dyn Exporter; 3] = [&Csv, &Latex::Document, &Markdown::default()];
        for exporter in exporters {
            let file = folder.join(&table.id).with_extension(exporter.extension());
            files::write_part(&file, exporter.export(&table).as_bytes())?;
        }
        texts.push(Markdown::default().export(&table));
    }
    files::force(&folder)?;
    // So that whoever derives them again finds the same.
    if run.spec != before {
        files::write_sealed(&into.join(SPEC), &run.spec)?;
    }
    Ok(texts.join("\n"))
}

/// A run's folder and what its tables show.
#[derive(Debug)]
pub(crate) struct Run {
    spec: RunTables,
    /// Lists of attacks of which the command line wants the worst case.
    asked: Vec<Vec<String>>,
    /// Of every cell.
    pub(crate) folders: Vec<PathBuf>,
    /// The place in `folders` of each cell, by the part of its key that names the folder.
    by_key: HashMap<String, usize>,
}

impl Run {
    /// Reads what a matrix left in a run's folder.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let spec = read_spec(root)?;
        let folders: Vec<PathBuf> = spec.cells.iter().map(|name| root.join("cells").join(name)).collect();
        let key = |name: &String| name.get(..KEY_DIGITS).map(str::to_string);
        let by_key = spec.cells.iter().map(key).enumerate();
        Ok(Self {
            by_key: by_key.filter_map(|(place, key)| Some((key?, place))).collect(),
            asked: Vec::new(),
            spec,
            folders,
        })
    }

    /// Shows what is asked for beyond what the folder says.
    fn change(&mut self, changes: &Changes) -> Result<()> {
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

    /// Everything the matrix asks for, with the name of its cell's folder.
    pub(crate) fn planned(&self) -> impl Iterator<Item = (&Planned, &str)> {
        let names = self.spec.cells[self.spec.count_trainings()..]
            .iter()
            .map(String::as_str);
        self.spec.planned.iter().zip(names)
    }

    /// The place of a row's cell in `folders`.
    fn place(&self, row: &Row) -> Option<usize> {
        row.cell.get(..KEY_DIGITS).and_then(|key| self.by_key.get(key)).copied()
    }

    /// The folder of a row's cell.
    pub(crate) fn folder(&self, row: &Row) -> Option<&Path> {
        self.place(row).map(|place| self.folders[place].as_path())
    }

    /// Puts rows, which are stored by name, into the order of the matrix, in which figures and comparisons show them.
    pub(crate) fn order(&self, rows: &mut [Row]) {
        rows.sort_by_key(|row| self.place(row));
    }

    /// What became of every image in an evaluation.
    fn outcomes(&self, row: &Row) -> Result<Vec<results::Outcome>> {
        let folder = self
            .folder(row)
            .with_context(|| format!("cell {} has no folder", row.cell))?;
        Ok(results::read_outcomes(&folder.join(results::OUTCOMES_FILE))?)
    }

    /// Every pair of defenses that were attacked alike.
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
        let mut planned = self.spec.planned.clone();
        let mut rows = stored.to_vec();
        for names in &self.spec.worst_of {
            let label = worst_label(names);
            let of_first: Vec<Planned> = planned
                .iter()
                .filter(|it| is_called(it.kind, &it.attack, &names[0]))
                .cloned()
                .collect();
            planned.extend(of_first.into_iter().map(|it| Planned {
                attack: label.clone(),
                kind: Kind::WhiteBox,
                source: None,
                ..it
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
        let tables = self.spec.tables.iter();
        let built: Result<Vec<Table>, _> = tables.map(|table| Table::build(table, &index)).collect();
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

/// Every file that the spec in a run's folder names, from that folder.
pub(crate) fn named_files(root: &Path) -> Result<Vec<PathBuf>> {
    let spec = read_spec(root)?;
    let cells = spec.cells.iter().map(|cell| Path::new("cells").join(cell));
    let tables = spec.tables.iter().map(|table| Path::new(FOLDER).join(&table.id));
    Ok(cells.chain(tables).collect())
}

/// The tables of a run in one written format, one after the other.
pub(crate) fn read(root: &Path, extension: &str) -> Result<String> {
    let mut text = String::new();
    for table in read_spec(root)?.tables {
        let file = root.join(FOLDER).join(&table.id).with_extension(extension);
        text += &std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text.push('\n');
    }
    Ok(text)
}
