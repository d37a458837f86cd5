//! The rows, columns and blocks of each table, in the order of the matrix.

use std::collections::{HashMap, HashSet};

use paper_tables::{BlockSpec, ColumnSpec, RowSpec, TableKind, TableSpec, TableStyle};
use results::Kind;

use super::style::style_entry;
use super::worst::worst_column;
use crate::cell::{Evaluation, Training};
use crate::label::{defense_label, slug};
use crate::matrix::{TableEntry, TableName};
use crate::plan::Plan;

/// A mistake in an entry: the field at fault, and what is wrong with it.
pub(crate) type EntryMistake = (&'static str, String);

/// The tables of all entries. The error says of every wrong entry, by its index, what is wrong with it.
pub(crate) fn table_specs(plan: &Plan, entries: &[TableEntry]) -> Result<Vec<TableSpec>, Vec<(usize, EntryMistake)>> {
    let mut specs = Vec::new();
    let mut mistakes = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let checked = check_networks(plan, entry).and_then(|()| check_worst(plan, entry));
        match checked.and_then(|()| entry_specs(plan, entry)) {
            Ok(of_entry) => specs.extend(of_entry),
            Err(mistake) => mistakes.push((i, mistake)),
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    number_repeats(&mut specs);
    Ok(specs)
}

fn check_networks(plan: &Plan, entry: &TableEntry) -> Result<(), EntryMistake> {
    if plan.trainings.iter().any(|training| covers(entry, training)) {
        return Ok(());
    }
    let message = "no network of this matrix belongs to this table; check its `networks` and `datasets`";
    Err(("", message.to_string()))
}

/// Fails where a table wants the worst case over an attack that the matrix does not have.
fn check_worst(plan: &Plan, entry: &TableEntry) -> Result<(), EntryMistake> {
    for names in &entry.worst_of {
        let known = |name: &str| {
            let mut evaluations = plan.evaluations.iter();
            evaluations.any(|evaluation| results::is_called(evaluation.kind(), &evaluation.label, name))
        };
        if names.is_empty() {
            let message = "an empty list: a worst case needs at least one attack";
            return Err(("worst_of", message.to_string()));
        }
        if let Some(unknown) = names.iter().find(|name| !known(name)) {
            let message = format!(
                "no attack of this matrix is called `{unknown}`; write a label as tables show it, such as `PGD-20`, \
                 or `transfer/PGD-20`"
            );
            return Err(("worst_of", message));
        }
    }
    Ok(())
}

/// Whether an entry shows a training.
fn covers(entry: &TableEntry, training: &Training) -> bool {
    let chosen = |names: &Option<Vec<String>>, name: &String| names.as_ref().is_none_or(|names| names.contains(name));
    chosen(&entry.networks, &training.network) && chosen(&entry.datasets, &training.dataset.name)
}

/// The tables of one entry: rows, columns and blocks in the matrix's own order.
fn entry_specs(plan: &Plan, entry: &TableEntry) -> Result<Vec<TableSpec>, EntryMistake> {
    let (kind, title) = match entry.name {
        TableName::WhiteBox => (TableKind::WhiteBox, "White-box robustness"),
        TableName::BlackBox => (TableKind::BlackBox, "Black-box robustness (transfer)"),
        TableName::WideNetwork => (TableKind::WideNetwork, "White-box robustness of wide networks"),
        TableName::Unlabeled => (TableKind::Unlabeled, "White-box robustness with unlabeled data"),
        TableName::Summary => (TableKind::Summary, "Robustness"),
        TableName::Transfer => (TableKind::Transfer, "Transfer from column to line"),
    };
    let belongs = |evaluation: &&Evaluation| {
        let kind = match entry.name {
            TableName::BlackBox => evaluation.source.is_some() || evaluation.label == NATURAL,
            TableName::WhiteBox | TableName::WideNetwork | TableName::Unlabeled => evaluation.source.is_none(),
            TableName::Summary => true,
            TableName::Transfer => evaluation.source.is_some(),
        };
        kind && covers(entry, plan.target(evaluation))
    };
    let evaluations: Vec<&Evaluation> = plan.evaluations.iter().filter(belongs).collect();
    let title = entry.title.clone().unwrap_or_else(|| format!("{}: {title}", plan.name));
    if entry.name != TableName::Transfer {
        let mut spec = table_spec(plan, kind, kind.as_str().to_string(), title, &evaluations);
        spec.columns
            .extend(entry.worst_of.iter().map(|names| worst_column(names)));
        style_entry(entry, &mut spec)?;
        return Ok(vec![spec]);
    }
    let mut attacks: Vec<&str> = Vec::new();
    evaluations
        .iter()
        .for_each(|evaluation| add(&mut attacks, evaluation.label.as_str()));
    let of_attack = |attack: &&str| {
        let transferred = evaluations.iter().copied();
        let transferred: Vec<&Evaluation> = transferred.filter(|evaluation| evaluation.label == *attack).collect();
        let id = format!("{}-{}", kind.as_str(), slug(attack));
        let mut spec = table_spec(plan, kind, id, format!("{title}: {attack}"), &transferred);
        for column in &mut spec.columns {
            column.label = format!("from {}", column.source.as_deref().unwrap_or_default());
        }
        style_entry(entry, &mut spec)?;
        Ok(spec)
    };
    attacks.iter().map(of_attack).collect()
}

/// Numbers tables of one kind: each has files of its own.
fn number_repeats(tables: &mut [TableSpec]) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for table in tables {
        let count = seen.entry(table.id.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            table.id += &format!("-{count}");
        }
    }
}

fn table_spec(plan: &Plan, kind: TableKind, id: String, title: String, evaluations: &[&Evaluation]) -> TableSpec {
    let mut spec = TableSpec {
        id,
        title,
        kind,
        blocks: Vec::new(),
        rows: Vec::new(),
        columns: Vec::new(),
        checkpoints: Vec::new(),
        style: TableStyle::default(),
    };
    let several = with_several_sources(plan, evaluations);
    for evaluation in evaluations {
        let training = plan.target(evaluation);
        add(&mut spec.blocks, block(training));
        add(&mut spec.rows, row(training, kind));
        let place = (evaluation.label.as_str(), training.network.as_str());
        add(&mut spec.columns, column(kind, evaluation, several.contains(&place)));
        add(&mut spec.checkpoints, evaluation.checkpoint.into());
    }
    spec.checkpoints.sort();
    // The paper shows one line per defense except for wide networks.
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
    // With unlabeled images, the paper keeps every label and adds images.
    let data = &training.dataset;
    let with_more = training.supervision.unlabeled.is_some() && data.labeled.is_none();
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
fn with_several_sources<'a>(plan: &'a Plan, evaluations: &[&'a Evaluation]) -> HashSet<(&'a str, &'a str)> {
    let mut sources: HashMap<(&str, &str), &str> = HashMap::new();
    let mut several = HashSet::new();
    for evaluation in evaluations {
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
    let label = match (&source, table, evaluation.kind()) {
        (Some(source), ..) => format!("{} from {source}", evaluation.label),
        (None, TableKind::Summary, Kind::Transfer) => format!("{} transfer", evaluation.label),
        (None, TableKind::Summary, Kind::Query) => format!("{} queries", evaluation.label),
        _ => evaluation.label.clone(),
    };
    ColumnSpec {
        label,
        attack: evaluation.label.clone(),
        kind: evaluation.kind(),
        source,
        published: Some(evaluation.label.to_lowercase().replace('-', "")),
    }
}
