//! From the cells on disk to the tables of a run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use paper_tables::{
    BlockSpec, ColumnSpec, Csv, Exporter, Latex, Markdown, Planned, Published, RowSpec, Table, TableKind, TableSpec,
};
use results::{Checkpoint as StoredCheckpoint, Kind, PerExample};
use serde::{Deserialize, Serialize};

use crate::exit::Stop;
use crate::files;
use crate::matrix::{Checkpoint, TableEntry, TableName};
use crate::plan::{Evaluation, Plan, Training};
use crate::run::Cell;

/// What the tables of a run show, kept in its folder so that they can be typeset again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    tables: Vec<TableSpec>,
    /// Everything the matrix asks for, whether it ran or not.
    planned: Vec<Planned>,
    /// The folders of all cells, in `cells`.
    cells: Vec<PathBuf>,
}

const SPEC: &str = "tables.json";
const FOLDER: &str = "tables";

/// Notes in the run's folder what its tables show.
pub(crate) fn write_spec(root: &Path, plan: &Plan) -> Result<()> {
    let folder = |cell: Cell| {
        let folder = plan.folder(root, cell);
        folder
            .file_name()
            .map(PathBuf::from)
            .expect("a cell has a folder of its own")
    };
    let spec = Spec {
        tables: plan.tables.iter().map(|entry| table_spec(plan, entry)).collect(),
        planned: plan.evaluations.iter().map(|it| planned(plan, it)).collect(),
        cells: plan.cells().map(folder).collect(),
    };
    files::write_json(&root.join(SPEC), &spec)
}

/// Combines the rows of all finished cells, writes every table in every format, and returns them in
/// Markdown.
pub(crate) fn write(root: &Path) -> Result<String> {
    let spec: Option<Spec> = files::read_json(&root.join(SPEC))?;
    let spec = spec.ok_or_else(|| {
        Stop::usage(format!(
            "{} is not the folder of a run; runs are kept in `runs/` unless --out says otherwise",
            root.display()
        ))
    })?;
    let folders: Vec<PathBuf> = spec.cells.iter().map(|name| root.join("cells").join(name)).collect();
    let rows = results::combine(root, &folders, PerExample::Combine)?;
    let folder = root.join(FOLDER);
    files::make_folder(&folder)?;
    let mut texts = Vec::new();
    for table in &spec.tables {
        let table = Table::build(table, &spec.planned, &rows, Published::embedded())
            .context("the matrix leaves open what a place of a table shows")?;
        let exporters: [&dyn Exporter; 3] = [&Csv, &Latex::Document, &Markdown::default()];
        for exporter in exporters {
            let file = folder.join(&table.id).with_extension(exporter.extension());
            files::write(&file, exporter.export(&table).as_bytes())?;
        }
        texts.push(Markdown::default().export(&table));
    }
    Ok(texts.join("\n"))
}

/// The tables of a run in one written format, one after the other.
pub(crate) fn read(root: &Path, extension: &str) -> Result<String> {
    let spec: Option<Spec> = files::read_json(&root.join(SPEC))?;
    let mut text = String::new();
    for table in spec.iter().flat_map(|spec| &spec.tables) {
        let file = root.join(FOLDER).join(&table.id).with_extension(extension);
        text += &std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text.push('\n');
    }
    Ok(text)
}

/// What one table shows: its rows, columns and blocks in the matrix's own order.
fn table_spec(plan: &Plan, entry: &TableEntry) -> TableSpec {
    let (kind, title) = match entry.name {
        TableName::WhiteBox => (TableKind::WhiteBox, "White-box robustness"),
        TableName::BlackBox => (TableKind::BlackBox, "Black-box robustness (transfer)"),
        TableName::WideNetwork => (TableKind::WideNetwork, "White-box robustness of wide networks"),
    };
    let chosen = |names: &Option<Vec<String>>, name: &String| names.as_ref().is_none_or(|it| it.contains(name));
    let mut spec = TableSpec {
        id: kind.as_str().to_string(),
        title: entry.title.clone().unwrap_or_else(|| format!("{}: {title}", plan.name)),
        kind,
        blocks: Vec::new(),
        rows: Vec::new(),
        columns: Vec::new(),
        checkpoints: Vec::new(),
    };
    for evaluation in &plan.evaluations {
        let training = plan.target(evaluation);
        let belongs = match entry.name {
            TableName::BlackBox => evaluation.source.is_some() || evaluation.label == NATURAL,
            TableName::WhiteBox | TableName::WideNetwork => evaluation.source.is_none(),
        };
        if !belongs || !chosen(&entry.networks, &training.network) || !chosen(&entry.datasets, &training.dataset.name) {
            continue;
        }
        add(&mut spec.blocks, block(training));
        add(&mut spec.rows, row(training));
        add(&mut spec.columns, column(evaluation));
        add(&mut spec.checkpoints, stored(evaluation.checkpoint));
    }
    spec.checkpoints.sort();
    // The paper shows one line for each defense but for wide networks.
    if entry.name != TableName::WideNetwork {
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

fn row(training: &Training) -> RowSpec {
    RowSpec {
        defense: training.label.clone(),
        recipe: None,
        published: Some(training.defense.name.to_string()),
    }
}

fn column(evaluation: &Evaluation) -> ColumnSpec {
    let published = evaluation.label.to_lowercase().replace('-', "");
    ColumnSpec {
        label: evaluation.label.clone(),
        attack: evaluation.label.clone(),
        kind: kind(evaluation),
        source: None,
        published: Some(published),
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
