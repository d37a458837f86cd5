//! What is behind each number: seeds, files, classes, settings, curves and images.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anyhow::Result;
use paper_tables::{
    At, CellFolder, ClassCount, Detail, DetailSeed, ExampleImages, PageLink, Planned, ReportChart, TableSpec,
    TrainingSettings,
};
use plan::tables::Names;
use plan::{CELLS, CellName};
use results::{Kind, Row, Status};
use serde_json::Value;
use storage::manifest;

use super::warnings::Warnings;
use crate::publish::example_images::class_name;
use crate::publish::run::FinishedRun;

/// A panel for each number: the evaluations that differ in their seeds alone.
pub(super) struct Panels<'a> {
    run: &'a FinishedRun,
    /// Each with the name of its cell.
    groups: Vec<Vec<(&'a Planned, &'a CellName)>>,
    by_place: HashMap<Place<'a>, usize>,
}

/// An evaluation but for its seed: data set, network, defense, recipe, attack, source, kind, and whether it is of the best
/// checkpoint.
type Place<'a> = ([&'a str; 5], Option<&'a str>, Kind, results::Checkpoint);

fn place(planned: &Planned) -> Place<'_> {
    let Planned {
        dataset,
        network,
        defense,
        recipe,
        attack,
        ..
    } = planned;
    (
        [dataset, network, defense, recipe, attack],
        planned.source.as_deref(),
        planned.kind,
        planned.checkpoint,
    )
}

impl<'a> Panels<'a> {
    pub(super) fn new(run: &'a FinishedRun) -> Self {
        let mut groups: Vec<Vec<(&Planned, &CellName)>> = Vec::new();
        let mut by_place = HashMap::new();
        for (planned, cell) in run.planned() {
            let at = *by_place.entry(place(planned)).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[at].push((planned, cell));
        }
        Self { run, groups, by_place }
    }

    /// The id of an evaluation's panel.
    pub(super) fn of(&self, planned: &Planned) -> Option<String> {
        self.by_place.get(&place(planned)).map(|at| self.id(*at))
    }

    fn id(&self, at: usize) -> String {
        format!("number-{}", self.groups[at][0].1.key_digits())
    }

    /// The id of the panel of a table's entry. A worst case over several attacks has none.
    pub(super) fn of_entry(&self, table: &TableSpec, at: At) -> Option<String> {
        let count = table.checkpoints.len().max(1);
        let (block, column) = (table.blocks.get(at.block)?, table.columns.get(at.column)?);
        let row = table.rows.get(at.line / count)?;
        let checkpoint = table.checkpoints.get(at.line % count)?;
        let is_shown = |group: &Vec<(&Planned, &CellName)>| {
            let one = group[0].0;
            (&one.dataset, &one.network, &one.defense) == (&block.dataset, &block.network, &row.defense)
                && (&one.attack, one.kind, one.checkpoint) == (&column.attack, column.kind, *checkpoint)
                && row.recipe.as_ref().is_none_or(|recipe| *recipe == one.recipe)
                && (column.source.is_none() || column.source == one.source)
        };
        self.groups.iter().position(is_shown).map(|at| self.id(at))
    }

    /// All panels. `linked`: the page will lie in the run's folder.
    pub(super) fn details(&self, facts: &Facts<'_>, linked: bool) -> Result<Vec<Detail>> {
        let by_key: HashMap<&str, &Row> = facts
            .rows
            .iter()
            .filter_map(|row| Some((row.cell.get(..CellName::KEY_DIGITS)?, row)))
            .collect();
        let marks = facts.warnings.by_cell();
        let trainings: HashMap<_, &Path> = self
            .run
            .trainings()
            .map(|(trained, folder)| (trained.names(), folder.as_path()))
            .collect();
        let detail = |(at, group): (usize, &Vec<(&Planned, &CellName)>)| {
            let first = group[0].0;
            let rows: Vec<&Row> = group
                .iter()
                .filter_map(|(_, cell)| by_key.get(cell.key_digits()).copied())
                .collect();
            let seed = |(planned, cell): &(&Planned, &CellName)| -> Result<DetailSeed> {
                let row = by_key.get(cell.key_digits()).copied();
                let names = planned.training();
                let mut folders = Vec::new();
                if row.is_some() {
                    let folder = self.run.folder_of(cell);
                    folders.extend(
                        folder
                            .map(|folder| listed("files of the evaluation", folder, linked))
                            .transpose()?,
                    );
                }
                if let Some(folder) = trainings.get(&names) {
                    let epoch = row.and_then(|row| row.epoch);
                    let label = epoch.map_or_else(
                        || "files of the training".to_string(),
                        |epoch| format!("files of the training; this checkpoint is of epoch {epoch}"),
                    );
                    folders.push(listed(&label, folder, linked)?);
                }
                Ok(DetailSeed {
                    folders,
                    marks: row
                        .and_then(|row| marks.get(row.cell.as_str()))
                        .cloned()
                        .unwrap_or_default(),
                    ..of_seed(planned, row)
                })
            };
            Ok(Detail {
                id: self.id(at),
                title: title(first),
                place: about(first, rows.first().copied()),
                seeds: group.iter().map(seed).collect::<Result<_>>()?,
                classes: classes(&rows, facts),
                attack: rows.first().map_or_else(Vec::new, |row| attack(row)),
                links: links(first, facts),
            })
        };
        self.groups.iter().enumerate().map(detail).collect()
    }
}

/// What panels show of a run.
pub(super) struct Facts<'a> {
    pub(super) rows: &'a [Row],
    pub(super) warnings: &'a Warnings,
    /// Correct images and all images of each class, by cell.
    pub(super) classes: &'a HashMap<String, BTreeMap<u32, (u64, u64)>>,
    pub(super) charts: &'a [ReportChart],
    pub(super) examples: &'a [ExampleImages],
    pub(super) trainings: &'a [TrainingSettings],
}

fn title(planned: &Planned) -> String {
    let under = match planned.kind {
        Kind::Natural => "on clean images".to_string(),
        _ => format!("under {}", planned.attack),
    };
    let from = planned
        .source
        .as_ref()
        .map_or_else(String::new, |source| format!(" made on {source}"));
    format!("{} {under}{from}", planned.defense)
}

fn about(planned: &Planned, row: Option<&Row>) -> String {
    let mut text = format!(
        "{}, {}, {} checkpoint, recipe {}",
        planned.dataset, planned.network, planned.checkpoint, planned.recipe
    );
    if let Some((norm, epsilon)) = row.and_then(|row| Some((row.norm.as_deref()?, row.epsilon.as_deref()?))) {
        let norm = match norm {
            "linf" => "L∞",
            "l2" => "L2",
            other => other,
        };
        text += &format!(", {norm}, ε = {epsilon}");
    }
    text
}

fn of_seed(planned: &Planned, row: Option<&Row>) -> DetailSeed {
    let (state, text, count) = match row {
        None => ("missing", "missing".to_string(), String::new()),
        Some(row) if row.status == Status::Failed => {
            let why = row.error.as_deref().unwrap_or_default();
            ("failed", format!("failed: {why}"), String::new())
        }
        Some(row) => {
            let percent = |share: Option<f64>| 100.0 * share.unwrap_or(f64::NAN);
            let interval = format!("[{:.1}, {:.1}]", percent(row.accuracy_low), percent(row.accuracy_high));
            let count = row
                .n_correct
                .zip(row.n)
                .map(|(correct, of)| format!("{correct} of {of} correct"));
            let text = format!("{:.2} % {interval}", percent(row.accuracy));
            ("done", text, count.unwrap_or_default())
        }
    };
    DetailSeed {
        seed: planned.seed,
        state,
        text,
        count,
        ..DetailSeed::default()
    }
}

/// A cell's folder and what is in it.
fn listed(label: &str, folder: &Path, linked: bool) -> Result<CellFolder> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut files = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // The names that cells give their files; any of them can be part of an address as it is.
            if name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
                files.push(name);
            }
        }
        files.sort();
    }
    Ok(CellFolder {
        label: label.to_string(),
        path: format!("{CELLS}/{name}"),
        files,
        linked,
    })
}

fn classes(rows: &[&Row], facts: &Facts<'_>) -> Vec<ClassCount> {
    let mut counts: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for class in rows.iter().filter_map(|row| facts.classes.get(&row.cell)).flatten() {
        let (label, (correct, of)) = class;
        let count = counts.entry(*label).or_default();
        count.0 += correct;
        count.1 += of;
    }
    let dataset = rows.first().map_or("", |row| row.dataset.as_str());
    counts
        .into_iter()
        .map(|(label, (correct, of))| ClassCount::new(class_name(dataset, label), correct, of))
        .collect()
}

/// The attack's settings as the row records them.
fn attack(row: &Row) -> Vec<(String, String)> {
    let config = row.evaluation_config.as_deref().unwrap_or("null");
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    let settings = paper_tables::settings(&config).into_iter();
    // What the panel's head says, and keys of other cells, are left out.
    let of_attack = settings.filter_map(|(path, value)| {
        let path = path.strip_prefix("attack.")?;
        let path = path.strip_prefix("config.").unwrap_or(path);
        (!["config", "version"].contains(&path)).then(|| (path.to_string(), value))
    });
    of_attack.collect()
}

/// Everything about each training; seeds alone make no difference.
pub(super) fn trainings(run: &FinishedRun) -> Vec<TrainingSettings> {
    let mut known = HashSet::new();
    let trainings = run.trainings().filter(|(trained, _)| trained.config.is_object());
    let new = trainings.filter(|(trained, _)| known.insert(settings_id(trained.names())));
    new.map(|(trained, _)| TrainingSettings {
        id: settings_id(trained.names()),
        title: format!(
            "{} on {}, {}, recipe {}",
            trained.defense, trained.dataset, trained.network, trained.recipe
        ),
        pairs: paper_tables::settings(&trained.config)
            .into_iter()
            .filter(|(path, _)| !["cell", "code", "seed"].contains(&path.as_str()))
            .collect(),
    })
    .collect()
}

/// The id of a training's settings in the page. Labels that differ have different ones.
fn settings_id((dataset, network, defense, recipe, _): Names<'_>) -> String {
    let names = [dataset, network, defense, recipe].join("\n");
    format!("settings-{}", &manifest::digest(names.as_bytes())[..12])
}

/// The curves of the defense's training, and the images of the attack.
fn links(planned: &Planned, facts: &Facts<'_>) -> Vec<PageLink> {
    let network = plan::slug(&format!("{} {}", planned.dataset, planned.network));
    let with_recipe = format!("{}, {}", planned.defense, planned.recipe);
    let chart = |chart: &ReportChart| {
        let curve = [&planned.defense, &with_recipe]
            .into_iter()
            .find(|curve| chart.shows(curve).is_some())?;
        let to = chart.shows(curve)?.to_string();
        to.contains(&network).then(|| PageLink {
            to,
            text: chart.title().to_string(),
            curve: curve.clone(),
        })
    };
    let images = ExampleImages::id_of(&planned.dataset, &planned.network, &planned.attack);
    let shown = facts.examples.iter().find(|group| {
        group.id == images
            && planned.kind == Kind::WhiteBox
            && group.lines.iter().any(|line| line.name == planned.defense)
    });
    let images = shown.map(|group| PageLink {
        to: format!("images-{}", group.id),
        text: format!("images: {}", group.title),
        curve: String::new(),
    });
    let names = planned.training();
    let to = settings_id(names);
    let settings = facts.trainings.iter().find(|training| training.id == to);
    let settings = settings.map(|training| PageLink {
        to,
        text: format!("settings of the training: {}", training.title),
        curve: String::new(),
    });
    let curves = facts.charts.iter().filter_map(chart);
    settings.into_iter().chain(images).chain(curves).collect()
}
