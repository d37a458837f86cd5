//! Footnotes: what a reader must know to trust a table.

use std::collections::{BTreeMap, BTreeSet};

use results::{Checkpoint, Flag, Kind, Row, Selection, Status};

use super::comparison::comparison;
use super::types::{Cell, Entry, Table};
use crate::format::superscript;
use crate::style::{Form, SpreadStyle};

/// The footnotes of a filled table, out of the rows it shows.
pub(crate) fn notes(table: &Table, rows: &[&Row]) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(unverified(table));
    notes.extend(accuracy(table, rows));
    notes.extend(threat(rows));
    notes.extend(sources(rows));
    notes.extend(recipes(rows));
    notes.extend(selection(table, rows));
    notes.extend(cost(table));
    notes.extend(highest(table));
    notes.extend(against(table));
    notes.extend(flags(table));
    notes.extend(symbols(table));
    notes.extend(comparison(table));
    notes.extend(mixtures(rows));
    notes
}

fn unverified(table: &Table) -> Option<String> {
    let blocks = table.blocks.iter().filter(|block| !block.verified);
    let names: BTreeSet<&str> = blocks.map(|block| block.dataset.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "Unverified data: the files of {} have not been verified to be the published data set.",
            list(names)
        )
    })
}

fn accuracy(table: &Table, rows: &[&Row]) -> Option<String> {
    let done: Vec<&&Row> = rows.iter().filter(|row| row.status == Status::Done).collect();
    let mut text = format!("Accuracy in % on {}", images(&done)?);
    let seeds: BTreeSet<u64> = done.iter().map(|row| row.seed).collect();
    let seeds = match seeds.len() {
        0..=8 => format!("seeds {}", list(seeds)),
        many => format!("{many} seeds"),
    };
    for what in spread(table, &seeds) {
        text += "; ";
        text += &what;
    }
    Some(text + ".")
}

/// How many images the accuracies are of: data set by data set where these differ, and attack by attack within one.
fn images(done: &[&&Row]) -> Option<String> {
    let mut datasets: BTreeMap<&str, BTreeMap<&str, BTreeSet<u64>>> = BTreeMap::new();
    for row in done {
        if let Some(n) = row.n {
            let attacks = datasets.entry(&row.dataset).or_default();
            attacks.entry(&row.attack).or_default().insert(n);
        }
    }
    let mut texts = datasets.into_iter().map(|(dataset, attacks)| {
        let most = attacks.values().filter_map(|counts| counts.last()).max().copied();
        let mut others: BTreeMap<&BTreeSet<u64>, Vec<&str>> = BTreeMap::new();
        for (attack, counts) in &attacks {
            if counts.len() > 1 || counts.last() != most.as_ref() {
                others.entry(counts).or_default().push(attack);
            }
        }
        let others = others.into_iter().map(|(counts, attacks)| {
            let ends = counts.first().into_iter().chain(counts.last());
            let ends: BTreeSet<u64> = ends.copied().collect();
            let ends: Vec<String> = ends.into_iter().map(thousands).collect();
            format!("{} on {}", list(attacks), ends.join(" to "))
        });
        let others = others.collect::<Vec<_>>().join("; ");
        let others = if others.is_empty() {
            others
        } else {
            format!(" ({others})")
        };
        (dataset, thousands(most.unwrap_or(0)), others)
    });
    let (dataset, most, others) = texts.next()?;
    let rest: Vec<_> = texts.collect();
    if rest.iter().all(|(_, count, but)| (count, but) == (&most, &others)) {
        return Some(format!("{most} test images{others}"));
    }
    let rest = rest
        .into_iter()
        .map(|(dataset, most, others)| format!(", {most} of {dataset}{others}"));
    Some(format!(
        "{most} test images of {dataset}{others}{}",
        rest.collect::<String>()
    ))
}

/// What is shown beside a mean.
fn spread(table: &Table, seeds: &str) -> Vec<String> {
    let measured = || table.entries().filter_map(|entry| entry.cell.measurement());
    let of_several = match (table.style.form(), table.style.spread) {
        (Form::Long, _) => format!(
            "sd is the sample standard deviation over {seeds}, and the interval is the 95% interval of their mean \
             (Student's t)"
        ),
        (_, SpreadStyle::MeanSd) => format!("± is the sample standard deviation over {seeds}"),
        (_, SpreadStyle::Interval) => format!("brackets are the 95% interval of the mean over {seeds} (Student's t)"),
        (_, SpreadStyle::Plain) => format!("means over {seeds}"),
    };
    let of_one = match (table.style.form(), table.style.spread) {
        (Form::Long, _) => "for a single seed, the interval is the 95% Wilson interval over images",
        (_, SpreadStyle::MeanSd | SpreadStyle::Interval) => {
            "brackets are the 95% Wilson interval over images, for a single seed"
        }
        (_, SpreadStyle::Plain) => "",
    };
    let mut texts = Vec::new();
    if measured().any(|measured| measured.seeds > 1) {
        texts.push(of_several);
    }
    if measured().any(|measured| measured.seeds == 1) && !of_one.is_empty() {
        texts.push(of_one.to_string());
    }
    texts
}

fn threat(rows: &[&Row]) -> Option<String> {
    let attacked = rows.iter().filter(|row| row.kind != Kind::Natural);
    let threats: BTreeSet<(&str, String)> = attacked
        .filter_map(|row| Some((row.dataset.as_str(), threat_of(row)?)))
        .collect();
    let texts: BTreeSet<&str> = threats.iter().map(|(_, text)| text.as_str()).collect();
    match texts.len() {
        0 => None,
        1 => Some(format!("Threat model: {}.", list(texts))),
        _ => {
            let texts = threats.iter().map(|(dataset, text)| format!("{dataset} {text}"));
            Some(format!("Threat models: {}.", texts.collect::<Vec<_>>().join("; ")))
        }
    }
}

/// The bound of a row's adversary, if it has one.
pub(crate) fn threat_of(row: &Row) -> Option<String> {
    let norm = match row.norm.as_deref()? {
        "linf" => "L∞",
        "l2" => "L2",
        other => other,
    };
    Some(format!("{norm}, ε = {}", row.epsilon.as_deref()?))
}

fn sources(rows: &[&Row]) -> Option<String> {
    let sources: BTreeSet<String> = rows
        .iter()
        .filter_map(|row| {
            let source = row.source.as_deref()?;
            Some(match row.source_checkpoint {
                Some(checkpoint) => format!("{source} ({checkpoint})"),
                None => source.to_string(),
            })
        })
        .collect();
    (!sources.is_empty()).then(|| format!("Transferred from {}.", list(sources)))
}

/// How the defenses were trained, where it is not one recipe for all or a recipe adds something.
fn recipes(rows: &[&Row]) -> Option<String> {
    let mut defenses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for row in rows {
        defenses.entry(&row.recipe).or_default().insert(&row.defense);
    }
    let mut added = Vec::new();
    for (mark, meaning) in [("AWP", "adversarial weight perturbation"), ("EMA", "averaged weights")] {
        if defenses
            .keys()
            .any(|recipe| recipe.split(", ").any(|part| part == mark))
        {
            added.push(format!("{mark}: {meaning}"));
        }
    }
    if defenses.len() < 2 && added.is_empty() {
        return None;
    }
    let of = |(recipe, defenses): (&str, BTreeSet<&str>)| format!("“{recipe}” for {}", list(defenses));
    let recipes: Vec<String> = defenses.into_iter().map(of).collect();
    let added = added.iter().map(|meaning| format!(" {meaning}.")).collect::<String>();
    Some(format!("Recipes: {}.{added}", recipes.join("; ")))
}

fn selection(table: &Table, rows: &[&Row]) -> Option<String> {
    let mut texts = Vec::new();
    if table.checkpoints.contains(&Checkpoint::Best) {
        let best = rows.iter().filter(|row| row.checkpoint == Checkpoint::Best);
        let selections: BTreeSet<Selection> = best.map(|row| row.selection).collect();
        texts.extend(selections.into_iter().map(|selection| match selection {
            Selection::Validation => {
                "best is the epoch with the highest robust accuracy on validation images held out of training"
            }
            Selection::Test => {
                "best is the epoch with the highest robust accuracy on the test images themselves, \
                 which inflates its accuracy"
            }
            Selection::None => "best was not selected on any images",
        }));
    }
    if table.checkpoints.contains(&Checkpoint::Last) {
        texts.push("last is the last epoch");
    }
    (!texts.is_empty()).then(|| format!("Checkpoints: {}.", texts.join("; ")))
}

/// Passes per image of each column: the mean over its cells, or their range where they differ by more than rounding.
fn cost(table: &Table) -> Option<String> {
    let mut texts: Vec<String> = Vec::new();
    for (column, heading) in table.columns.iter().enumerate() {
        let lines = table.blocks.iter().flat_map(|block| &block.lines);
        let measured = lines.filter_map(|line| line.entries[column].cell.measurement());
        let passes: Vec<(f64, f64)> = measured
            .filter_map(|measured| Some((measured.forwards?, measured.backwards?)))
            .collect();
        let forwards: Vec<f64> = passes.iter().map(|pair| pair.0).collect();
        let backwards: Vec<f64> = passes.iter().map(|pair| pair.1).collect();
        if heading.kind != Kind::Natural && !passes.is_empty() {
            texts.push(format!(
                "{} {} + {}",
                heading.label,
                range(&forwards),
                range(&backwards)
            ));
        }
    }
    (!texts.is_empty()).then(|| format!("Passes per image, forward + backward: {}.", texts.join("; ")))
}

fn range(values: &[f64]) -> String {
    let text = |value: f64| match value {
        value if value < 10.0 && value.fract() > 0.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    };
    let least = text(values.iter().copied().fold(f64::INFINITY, f64::min));
    let most = text(values.iter().copied().fold(0.0, f64::max));
    if least == most {
        least
    } else {
        format!("{least} to {most}")
    }
}

/// What is bold, and what is not significantly below it.
fn highest(table: &Table) -> Vec<String> {
    if !table.style.bold || !table.entries().any(|entry| entry.highest) {
        return Vec::new();
    }
    let each = match table.checkpoints.len() {
        0 | 1 => "its column",
        _ => "its column and checkpoint",
    };
    let mut notes = vec![format!("Bold: the highest mean in {each}, among complete cells.")];
    if table.entries().any(|entry| entry.tied == Some(true)) {
        let seeds = if several(table) { " for at least one seed" } else { "" };
        notes.push(format!(
            "† not significantly below the best (McNemar's exact test on the same images, Holm-adjusted over all pairs of \
             defenses, p ≥ 0.05{seeds})."
        ));
    }
    if table.style.against.is_none() {
        notes.extend(untested(table, |entry| entry.tied));
    }
    notes
}

/// Which defense the table compares with, and what differs significantly from it.
fn against(table: &Table) -> Vec<String> {
    let Some(defense) = table.style.against.as_deref() else {
        return Vec::new();
    };
    let seeds = if several(table) {
        " for every seed, always in the same direction"
    } else {
        ""
    };
    let mut notes = Vec::new();
    if table.entries().any(|entry| entry.different.is_some()) {
        let any = table.entries().any(|entry| entry.different == Some(true));
        notes.push(format!(
            "* significantly different from {defense} (McNemar's exact test on the same images, Holm-adjusted within each \
             column, p < 0.05{seeds}).{}",
            if any { "" } else { " No number is." }
        ));
    }
    notes.extend(untested(table, |entry| entry.different));
    notes
}

/// The columns of which no number was tested.
fn untested(table: &Table, tested: fn(&Entry) -> Option<bool>) -> Option<String> {
    let column = |column: &usize| {
        let lines = || table.blocks.iter().flat_map(|block| &block.lines);
        let entries = || lines().map(|line| &line.entries[*column]);
        entries().any(|entry| entry.highest) && entries().all(|entry| tested(entry).is_none())
    };
    let columns: Vec<usize> = (0..table.columns.len()).filter(column).collect();
    let labels = columns.iter().map(|&column| table.columns[column].label.clone());
    match columns.len() {
        0 => None,
        all if all == table.columns.len() => Some("Not tested for significance.".to_string()),
        _ => {
            let labels = labels.collect::<Vec<_>>().join("; ");
            Some(format!("Not tested for significance: {labels}."))
        }
    }
}

fn several(table: &Table) -> bool {
    let mut measured = table.entries().filter_map(|entry| entry.cell.measurement());
    measured.any(|measured| measured.seeds > 1)
}

fn flags(table: &Table) -> Vec<String> {
    let explain = |flag: &Flag| match table.style.form() {
        Form::Wide => format!("{} {flag}: {}.", superscript(table.letter(*flag)), flag.explanation()),
        Form::Long => format!("{flag}: {}.", flag.explanation()),
    };
    table.flags.iter().map(explain).collect()
}

fn symbols(table: &Table) -> Vec<String> {
    let mut notes = Vec::new();
    let any = |wanted: fn(&Cell) -> bool| table.entries().any(|entry| wanted(&entry.cell));
    if any(|cell| matches!(cell, Cell::Missing { .. })) {
        notes.push("— not run.".to_string());
    }
    let failures = table
        .entries()
        .filter(|entry| matches!(entry.cell, Cell::Failed { .. }));
    let failures: Vec<&str> = failures.filter_map(|entry| entry.cell.reason()).collect();
    if let Some(first) = failures.first() {
        let what = match failures.len() {
            1 => "failed: no seed finished; the error was".to_string(),
            many => format!("failed: no seed finished in {many} cells; the first error was"),
        };
        notes.push(format!("{what} “{}”.", shortened(first)));
    }
    let partial = || {
        table
            .entries()
            .filter(|entry| matches!(entry.cell, Cell::Partial { .. }))
    };
    if partial().next().is_some() {
        let mut text = "(k/n): only k of n seeds finished; the number is over those".to_string();
        if let Some(reason) = partial().find_map(|entry| entry.cell.reason()) {
            text += &format!("; others failed, the first with “{}”", shortened(reason));
        }
        notes.push(text + ".");
    }
    notes
}

/// What should be one thing throughout a table, and is not.
fn mixtures(rows: &[&Row]) -> Vec<String> {
    let mut notes = Vec::new();
    let digests: BTreeSet<(&str, &str)> = rows
        .iter()
        .map(|row| (row.dataset.as_str(), row.dataset_digest.as_str()))
        .collect();
    let datasets: BTreeSet<&str> = rows.iter().map(|row| row.dataset.as_str()).collect();
    if digests.len() > datasets.len() {
        notes.push("Caution: the results come from different files of the same data set.".to_string());
    }
    let versions: BTreeSet<&str> = rows.iter().map(|row| row.code_version.as_str()).collect();
    if versions.len() > 1 {
        notes.push(format!(
            "The results come from different versions of the program: {}.",
            list(versions)
        ));
    }
    notes
}

/// `10,000`.
fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<&str> = groups
        .map(|group| std::str::from_utf8(group).expect("digits"))
        .collect();
    groups.join(",")
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    texts.join(", ")
}

/// The first line, cut where it is long.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 120;
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_string(),
    }
}
