//! From the cells on disk to the tables of a run.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use paper_tables::{
    BlockSpec, Chart, ColumnSpec, Csv, Evidence, Exporter, Latex, Look, Markdown, Planned, Published, RowSpec, Table,
    TableKind, TableSpec,
};
use results::{Checkpoint as StoredCheckpoint, Comparison, Kind, PerExample, Row, is_called};
use serde::{Deserialize, Serialize};

use crate::exit::Stop;
use crate::figures::{self, Trained};
use crate::files;
use crate::folder::KEY_DIGITS;
use crate::look::{self, Wanted};
use crate::matrix::{Checkpoint, TableEntry, TableName};
use crate::plan::{Evaluation, Plan, Training, defense_label, slug};
use crate::run::Cell;

/// What the tables of a run show, kept in its folder so that they can be typeset again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    tables: Vec<TableSpec>,
    /// Lists of attacks of which the tables show the worst case.
    worst_of: Vec<Vec<String>>,
    /// Everything the matrix asks for, whether it ran or not.
    planned: Vec<Planned>,
    /// The folders of all cells, in `cells`: trainings first.
    cells: Vec<PathBuf>,
    /// What figures must know of each training. None in runs of earlier builds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    trainings: Vec<Trained>,
}

const SPEC: &str = "tables.json";
/// The folder of typeset tables, in a run's.
pub(crate) const FOLDER: &str = "tables";

/// Notes in the run's folder what its tables show.
pub(crate) fn write_spec(root: &Path, plan: &Plan) -> Result<()> {
    files::write_sealed(&root.join(SPEC), &spec(plan))
}

/// A hash of what the tables show and of all cells: equal for two who may work in one folder.
pub(crate) fn digest(plan: &Plan) -> Result<String> {
    let text = serde_json::to_string(&spec(plan))?;
    Ok(blake3::hash(text.as_bytes()).to_hex()[..32].to_string())
}

/// The names of a run's cells, trainings first, and how many of them are trainings.
pub(crate) fn cells(root: &Path) -> Result<(Vec<String>, usize)> {
    let spec = read_spec(root)?;
    let names = spec.cells.iter().map(|it| it.to_string_lossy().into_owned());
    Ok((names.collect(), spec.cells.len() - spec.planned.len()))
}

/// The spec in a run's folder, which may be anybody's: what it names must lie in that folder.
fn read_spec(root: &Path) -> Result<Spec> {
    let file = root.join(SPEC);
    let spec: Option<Spec> = files::read_sealed(&file)?;
    if let Some(spec) = &spec {
        let cells = spec.cells.iter().map(|cell| cell.to_str().unwrap_or(""));
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

fn spec(plan: &Plan) -> Spec {
    let folder = |cell: Cell| {
        let folder = plan.folder(Path::new(""), cell);
        folder
            .file_name()
            .map(PathBuf::from)
            .expect("a cell has a folder of its own")
    };
    Spec {
        tables: apart(plan.tables.iter().flat_map(|entry| table_specs(plan, entry)).collect()),
        worst_of: plan.tables.iter().flat_map(|entry| entry.worst_of.clone()).collect(),
        planned: plan.evaluations.iter().map(|it| planned(plan, it)).collect(),
        cells: plan.cells().map(folder).collect(),
        trainings: plan.trainings.iter().map(Trained::of).collect(),
    }
}

/// Numbers tables of one kind: each has files of its own.
fn apart(mut tables: Vec<TableSpec>) -> Vec<TableSpec> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for table in &mut tables {
        let count = seen.entry(table.id.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            table.id += &format!("-{count}");
        }
    }
    tables
}

/// What tables show beyond what their run's folder says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// Columns more, in every table of attacks on the networks themselves.
    pub(crate) worst_of: Vec<Vec<String>>,
    /// How all tables look.
    pub(crate) look: Wanted,
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

impl Spec {
    /// Adds a column for each of these lists of attacks.
    fn add_worst_of(&mut self, worst_of: &[Vec<String>]) {
        for names in worst_of {
            let shown = self.tables.iter_mut().filter(|table| has_worst(table.kind));
            shown.for_each(|table| add(&mut table.columns, worst_column(names)));
            self.worst_of.push(names.clone());
        }
        self.worst_of.sort();
        self.worst_of.dedup();
    }
}

/// A run's folder and what its tables show.
#[derive(Debug)]
pub(crate) struct Run {
    spec: Spec,
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
        let key = |name: &PathBuf| name.to_string_lossy().get(..KEY_DIGITS).map(str::to_string);
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
        let has_place = self.spec.tables.iter().any(|table| has_worst(table.kind));
        if !changes.worst_of.is_empty() && !has_place {
            return Err(Stop::usage(
                "--worst-of: this run has no table for it; add `summary` or `white-box` to the matrix's `tables`",
            ));
        }
        self.spec.add_worst_of(&changes.worst_of);
        self.asked.clone_from(&changes.worst_of);
        look::change(&mut self.spec.tables, &changes.look)
    }

    /// Every training with its folder.
    pub(crate) fn trainings(&self) -> impl Iterator<Item = (&Trained, &PathBuf)> {
        self.spec.trainings.iter().zip(&self.folders)
    }

    /// Everything the matrix asks for, with the name of its cell's folder.
    pub(crate) fn planned(&self) -> impl Iterator<Item = (&Planned, &str)> {
        let trainings = self.spec.cells.len().saturating_sub(self.spec.planned.len());
        let names = self.spec.cells[trainings..].iter().map(|it| it.to_str().unwrap_or(""));
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
        let evidence = Evidence::new(&planned, &rows, comparisons, Published::embedded());
        let tables = self.spec.tables.iter();
        let built: Result<Vec<Table>, _> = tables.map(|table| Table::build(table, &evidence)).collect();
        built.context("the matrix leaves open what a place of a table shows")
    }
}

/// Why there is no worst case.
enum Worst {
    NotThere(results::NotThere),
    Other(anyhow::Error),
}

impl From<results::NotThere> for Worst {
    fn from(error: results::NotThere) -> Self {
        Self::NotThere(error)
    }
}

const fn has_worst(kind: TableKind) -> bool {
    matches!(
        kind,
        TableKind::WhiteBox | TableKind::WideNetwork | TableKind::Unlabeled | TableKind::Summary
    )
}

fn worst_label(names: &[String]) -> String {
    format!("worst of {}", names.join(", "))
}

fn worst_column(names: &[String]) -> ColumnSpec {
    ColumnSpec {
        label: worst_label(names),
        attack: worst_label(names),
        kind: Kind::WhiteBox,
        source: None,
        published: None,
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

/// What the tables of one entry show: rows, columns and blocks in the matrix's own order.
pub(crate) fn table_specs(plan: &Plan, entry: &TableEntry) -> Vec<TableSpec> {
    let (kind, title) = match entry.name {
        TableName::WhiteBox => (TableKind::WhiteBox, "White-box robustness"),
        TableName::BlackBox => (TableKind::BlackBox, "Black-box robustness (transfer)"),
        TableName::WideNetwork => (TableKind::WideNetwork, "White-box robustness of wide networks"),
        TableName::Unlabeled => (TableKind::Unlabeled, "White-box robustness with unlabeled data"),
        TableName::Summary => (TableKind::Summary, "Robustness"),
        TableName::Transfer => (TableKind::Transfer, "Transfer from column to line"),
    };
    let chosen = |names: &Option<Vec<String>>, name: &String| names.as_ref().is_none_or(|it| it.contains(name));
    let belongs = |evaluation: &&Evaluation| {
        let training = plan.target(evaluation);
        let kind = match entry.name {
            TableName::BlackBox => evaluation.source.is_some() || evaluation.label == NATURAL,
            TableName::WhiteBox | TableName::WideNetwork | TableName::Unlabeled => evaluation.source.is_none(),
            TableName::Summary => true,
            TableName::Transfer => evaluation.source.is_some(),
        };
        kind && chosen(&entry.networks, &training.network) && chosen(&entry.datasets, &training.dataset.name)
    };
    let shown: Vec<&Evaluation> = plan.evaluations.iter().filter(belongs).collect();
    let title = entry.title.clone().unwrap_or_else(|| format!("{}: {title}", plan.name));
    if entry.name != TableName::Transfer {
        let mut spec = table_spec(plan, kind, kind.as_str().to_string(), title, &shown);
        spec.columns
            .extend(entry.worst_of.iter().map(|names| worst_column(names)));
        look::of_entry(entry, &mut spec);
        return vec![spec];
    }
    let mut attacks: Vec<&str> = Vec::new();
    shown.iter().for_each(|it| add(&mut attacks, it.label.as_str()));
    let of_attack = |attack: &&str| {
        let shown: Vec<&Evaluation> = shown.iter().copied().filter(|it| it.label == *attack).collect();
        let id = format!("{}-{}", kind.as_str(), slug(attack));
        let mut spec = table_spec(plan, kind, id, format!("{title}: {attack}"), &shown);
        for column in &mut spec.columns {
            column.label = format!("from {}", column.source.as_deref().unwrap_or_default());
        }
        look::of_entry(entry, &mut spec);
        spec
    };
    attacks.iter().map(of_attack).collect()
}

fn table_spec(plan: &Plan, kind: TableKind, id: String, title: String, shown: &[&Evaluation]) -> TableSpec {
    let mut spec = TableSpec {
        id,
        title,
        kind,
        blocks: Vec::new(),
        rows: Vec::new(),
        columns: Vec::new(),
        checkpoints: Vec::new(),
        look: Look::default(),
    };
    let several = with_several_sources(plan, shown);
    for evaluation in shown {
        let training = plan.target(evaluation);
        add(&mut spec.blocks, block(training));
        add(&mut spec.rows, row(training, kind));
        let place = (evaluation.label.as_str(), training.network.as_str());
        add(&mut spec.columns, column(kind, evaluation, several.contains(&place)));
        add(&mut spec.checkpoints, stored(evaluation.checkpoint));
    }
    spec.checkpoints.sort();
    // The paper shows one line for each defense but for wide networks.
    if !matches!(kind, TableKind::WideNetwork | TableKind::Summary) {
        spec.checkpoints.truncate(1);
    }
    spec
}

/// The label of clean images.
const NATURAL: &str = "Natural";

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn block(training: &Training) -> BlockSpec {
    BlockSpec {
        label: format!("{}, {}", training.dataset.name, training.network),
        dataset: training.dataset.name.clone(),
        network: training.network.clone(),
    }
}

fn row(training: &Training, table: TableKind) -> RowSpec {
    // A variant with a name of its own is not what was published.
    let is_usual = training.label == defense_label(training.defense.name);
    // Of what is trained with unlabeled images the paper has all labels, and images more.
    let data = &training.dataset;
    let with_more = training.schooling.unlabeled.is_some() && data.labeled.is_none();
    let as_published = match table {
        TableKind::Unlabeled => with_more,
        _ => is_usual && !data.has_unlabeled(),
    };
    let as_published = as_published && training.defense.method.treats().is_none();
    RowSpec {
        defense: training.label.clone(),
        recipe: None,
        published: as_published.then(|| training.defense.name.to_string()),
    }
}

/// The attacks, each with the network under attack, that are transferred from several networks.
fn with_several_sources<'a>(plan: &'a Plan, shown: &[&'a Evaluation]) -> HashSet<(&'a str, &'a str)> {
    let mut sources: HashMap<(&str, &str), &str> = HashMap::new();
    let mut several = HashSet::new();
    for evaluation in shown {
        let Some(source) = &evaluation.source else { continue };
        let place = (evaluation.label.as_str(), plan.target(evaluation).network.as_str());
        if *sources.entry(place).or_insert(&source.label) != source.label {
            several.insert(place);
        }
    }
    several
}

/// A column. Where one attack is transferred from several networks, each has a column of its own.
fn column(table: TableKind, evaluation: &Evaluation, several: bool) -> ColumnSpec {
    let source = evaluation.source.as_ref().map(|source| source.label.clone());
    let source = source.filter(|_| several || table == TableKind::Transfer);
    let label = match (&source, table, kind(evaluation)) {
        (Some(source), ..) => format!("{} from {source}", evaluation.label),
        (None, TableKind::Summary, Kind::Transfer) => format!("{} transfer", evaluation.label),
        (None, TableKind::Summary, Kind::Query) => format!("{} queries", evaluation.label),
        _ => evaluation.label.clone(),
    };
    ColumnSpec {
        label,
        attack: evaluation.label.clone(),
        kind: kind(evaluation),
        source,
        published: Some(evaluation.label.to_lowercase().replace('-', "")),
    }
}

fn planned(plan: &Plan, evaluation: &Evaluation) -> Planned {
    let training = plan.target(evaluation);
    Planned {
        dataset: training.dataset.name.clone(),
        network: training.network.clone(),
        defense: training.label.clone(),
        recipe: training.recipe_label.clone(),
        seed: training.seed,
        checkpoint: stored(evaluation.checkpoint),
        attack: evaluation.label.clone(),
        kind: kind(evaluation),
        source: evaluation.source.as_ref().map(|it| it.label.clone()),
    }
}

/// What an evaluation does to the images.
pub(crate) fn kind(evaluation: &Evaluation) -> Kind {
    match &evaluation.source {
        Some(_) => Kind::Transfer,
        None if evaluation.attack.name == "natural" => Kind::Natural,
        None if evaluation.attack.method.by_queries() => Kind::Query,
        None => Kind::WhiteBox,
    }
}

/// A checkpoint as the results name it.
pub(crate) fn stored(checkpoint: Checkpoint) -> StoredCheckpoint {
    match checkpoint {
        Checkpoint::Best => StoredCheckpoint::Best,
        Checkpoint::Last => StoredCheckpoint::Last,
    }
}
