use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use paper_tables::{Chart, Curve, Doubt, Heat, Item, Picture, Report, Shown, Value};
use results::{Flag, Kind, Row, Status, Timing};

use crate::cli::ReportArgs;
use crate::commands::plan::{duration, thousands};
use crate::exit::{Exit, Stop};
use crate::files;
use crate::manifest;
use crate::plan::slug;
use crate::tables::Run;
use crate::training::{self, Epoch};

const FILE: &str = "report.html";

/// Writes a run as one HTML page.
pub(crate) fn main(args: &ReportArgs, out: &mut dyn Write) -> Result<Exit> {
    let page = report(&args.run)?;
    let html = page.html().context("cannot fill the page")?;
    let file = args.out.clone().unwrap_or_else(|| args.run.join(FILE));
    files::write(&std::path::absolute(&file)?, html.as_bytes())?;
    if args.out.is_none() {
        manifest::refresh(&args.run, manifest::is_derived)?;
    }
    if args.out.is_none() {
        crate::manifest::refresh(&args.run, |path| path == FILE)?;
    }
    writeln!(out, "{}", file.display())?;
    Ok(Exit::Success)
}

fn report(root: &Path) -> Result<Report> {
    let run = Run::read(root)?;
    let file = root.join("results.parquet");
    if !file.exists() {
        return Err(Stop::usage(format!(
            "{} has no results yet; run its matrix first",
            root.display()
        )));
    }
    let rows = results::read_rows(&file)?;
    let timings = results::read_timings(&root.join("timings.parquet"))?;
    let histories = histories(&run.folders, &rows)?;
    let flags = results::flags(&rows);
    let mut charts = learning_curves(&histories);
    charts.extend(run.charts(&rows)?);
    let tables = run.tables(&rows, &run.comparisons(&rows)?)?;
    let title = rows.first().map_or_else(
        || root.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        |row| row.run.clone(),
    );
    let failed = rows.iter().filter(|row| row.status == Status::Failed).count();
    let mut tiles = vec![
        Item::new("networks trained", trained(&rows)),
        Item::new("evaluations", rows.len() - failed),
        Item::new("failed", failed),
        Item::new("flags", flags.len()),
        Item::new("images attacked", thousands(rows.iter().filter_map(|row| row.n).sum())),
        Item::new("of work", duration(timings.iter().map(|it| it.seconds).sum())),
    ];
    if rows.iter().any(|row| !row.verified) {
        tiles.push(Item::new("data", "unverified"));
    }
    let mut doubts: Vec<(Flag, Doubt)> = Vec::new();
    for raised in &flags {
        let place = format!(
            "{}, {}, {}, seed {}, {}, {}: {}",
            raised.dataset,
            raised.network,
            raised.defense,
            raised.seed,
            raised.checkpoint,
            raised.attack,
            raised.detail
        );
        match doubts.iter_mut().find(|(flag, _)| *flag == raised.flag) {
            Some((_, doubt)) => doubt.places.push(place),
            None => doubts.push((
                raised.flag,
                Doubt {
                    mark: (doubts.len() + 1).to_string(),
                    name: raised.flag.to_string(),
                    text: raised.flag.explanation().to_string(),
                    places: vec![place],
                },
            )),
        }
    }
    let mark = |flag: Flag| {
        let known = doubts.iter().find(|(it, _)| *it == flag);
        known.map_or_else(|| flag.to_string(), |(_, doubt)| doubt.mark.clone())
    };
    Ok(Report {
        title,
        subtitle: "Accuracy of trained networks under attack, with everything behind the numbers.".into(),
        tiles,
        tables: tables.iter().map(|table| Shown::new(table, mark)).collect(),
        flags: doubts.iter().map(|(_, doubt)| doubt.clone()).collect(),
        heats: heats(&rows),
        charts: charts.iter().map(picture).collect(),
        cell_heads: HEADS.map(String::from).into(),
        cells: cells(&rows, &timings),
        origin: origin(root, &rows, &timings)?,
        matrix: std::fs::read_to_string(root.join("matrix.yaml")).unwrap_or_default(),
        ..Report::default()
    })
}

fn trained(rows: &[Row]) -> usize {
    let mut networks: Vec<_> = rows
        .iter()
        .map(|row| (&row.dataset, &row.network, &row.defense, &row.recipe, row.seed))
        .collect();
    networks.sort();
    networks.dedup();
    networks.len()
}

/// A chart for the page: what is black there takes the text's colour, what is white the page's.
fn picture(chart: &Chart) -> Picture {
    Picture {
        title: chart.title.clone(),
        svg: chart
            .svg()
            .replace("#000000", "currentColor")
            .replace("#FFFFFF", "none"),
    }
}

/// Data set, network, defense, with the histories of its seeds.
type Histories = BTreeMap<(String, String, String), Vec<Vec<Epoch>>>;

/// Of every training that has one, by the names that its rows have.
fn histories(folders: &[PathBuf], rows: &[Row]) -> Result<Histories> {
    let mut names: BTreeMap<String, &Row> = BTreeMap::new();
    for row in rows {
        let name = format!("{}-{}-{}-s{}", row.dataset, row.network, slug(&row.defense), row.seed);
        names.entry(name).or_insert(row);
    }
    let mut found = Histories::new();
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let row = name.split_once('-').and_then(|(_, slug)| names.get(slug));
        let Some((row, history)) = row.zip(training::history(folder)?) else {
            continue;
        };
        let of = (row.dataset.clone(), row.network.clone(), row.defense.clone());
        found.entry(of).or_default().push(history);
    }
    Ok(found)
}

/// What training saw on the images on which it chooses, over epochs, the mean over seeds.
fn learning_curves(histories: &Histories) -> Vec<Chart> {
    let mut charts: Vec<Chart> = Vec::new();
    for (which, what) in ["robust", "natural"].into_iter().enumerate() {
        for ((dataset, network, defense), seeds) in histories {
            let mut epochs: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
            for epoch in seeds.iter().flatten() {
                if let Some(selected) = epoch.selected {
                    let value = if which == 0 { selected.robust } else { selected.natural };
                    epochs.entry(epoch.epoch).or_default().push(100.0 * value);
                }
            }
            let point = |(epoch, values): (u64, Vec<f64>)| (epoch as f64, results::mean(&values).unwrap_or(0.0));
            let curve = Curve {
                label: defense.clone(),
                points: epochs.into_iter().map(point).collect(),
                ..Curve::default()
            };
            let title = format!("{dataset}, {network}: {what} accuracy in training, where checkpoints are chosen");
            if curve.points.len() < 2 {
                continue;
            }
            match charts.iter_mut().find(|chart| chart.title == title) {
                Some(chart) => chart.curves.push(curve),
                None => charts.push(Chart {
                    id: slug(&title),
                    title,
                    x: "epoch".into(),
                    y: "accuracy in %".into(),
                    logarithmic: false,
                    curves: vec![curve],
                    ..Chart::default()
                }),
            }
        }
    }
    charts
}

/// Accuracy by source and target: for every attack that came from several networks, the mean over seeds.
fn heats(rows: &[Row]) -> Vec<Heat> {
    // By data set, network, checkpoint and attack; then by source and target.
    type Pairs<'a> = BTreeMap<(&'a str, &'a str), Vec<f64>>;
    let mut attacks: BTreeMap<_, Pairs<'_>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.kind == Kind::Transfer) {
        let (Some(source), Some(accuracy)) = (&row.source, row.accuracy) else {
            continue;
        };
        let of = (&row.dataset, &row.network, row.checkpoint, &row.attack);
        let pairs = attacks.entry(of).or_default();
        pairs.entry((source, &row.defense)).or_default().push(accuracy);
    }
    let mut heats = Vec::new();
    for ((dataset, network, checkpoint, attack), pairs) in attacks {
        let names = |pick: fn(&(&str, &str)) -> String| {
            let mut names: Vec<String> = pairs.keys().map(pick).collect();
            names.sort();
            names.dedup();
            names
        };
        let (sources, targets) = (names(|it| it.0.to_string()), names(|it| it.1.to_string()));
        if sources.len() < 2 {
            continue;
        }
        let title = format!("{attack} on {dataset}, {network} ({checkpoint})");
        heats.push(Heat::new(title, &sources, &targets, |i, j| {
            results::mean(pairs.get(&(sources[i].as_str(), targets[j].as_str()))?)
        }));
    }
    heats
}

const HEADS: [&str; 14] = [
    "defense",
    "network",
    "data",
    "seed",
    "checkpoint",
    "attack",
    "kind",
    "made on",
    "accuracy %",
    "95 % interval",
    "images",
    "passes / image",
    "largest change",
    "seconds",
];

fn cells(rows: &[Row], timings: &[Timing]) -> Vec<Vec<Value>> {
    let seconds: BTreeMap<&str, f64> = timings.iter().map(|it| (it.cell.as_str(), it.seconds)).collect();
    let cell = |row: &Row| {
        let percent = |value: Option<f64>| value.map(|it| 100.0 * it);
        let two = |value: f64| format!("{value:.2}");
        let accuracy = match (row.status, &row.error) {
            (Status::Failed, error) => Value {
                text: format!("failed: {}", error.as_deref().unwrap_or_default()),
                key: String::new(),
                class: "failed text".into(),
            },
            _ => Value::number(percent(row.accuracy), two),
        };
        let interval = match (percent(row.accuracy_low), percent(row.accuracy_high)) {
            (Some(low), Some(high)) => format!("{low:.1} to {high:.1}"),
            _ => "—".into(),
        };
        let per_image = |passes: Option<u64>| Some(passes? as f64 / row.n.filter(|n| *n > 0)? as f64);
        let passes = per_image(row.forwards).zip(per_image(row.backwards));
        vec![
            Value::text(row.defense.as_str()),
            Value::words(row.network.as_str()),
            Value::words(row.dataset.as_str()),
            Value::number(Some(row.seed as f64), |it| format!("{it:.0}")),
            Value::words(row.checkpoint.to_string()),
            Value::words(row.attack.as_str()),
            Value::words(row.kind.to_string()),
            Value::words(row.source.clone().unwrap_or_default()),
            accuracy,
            Value {
                key: row.accuracy_low.map_or_else(String::new, |it| it.to_string()),
                ..Value::text(interval)
            },
            Value::number(row.n.map(|it| it as f64), |it| format!("{it:.0}")),
            Value {
                key: passes.map_or_else(String::new, |(forward, backward)| (forward + backward).to_string()),
                ..Value::text(passes.map_or_else(
                    || "—".to_string(),
                    |(forward, backward)| format!("{forward:.1} + {backward:.1}"),
                ))
            },
            Value::number(row.max_delta, |it| format!("{it:.4}")),
            Value::number(seconds.get(row.cell.as_str()).copied(), two),
        ]
    };
    rows.iter().map(cell).collect()
}

fn origin(root: &Path, rows: &[Row], timings: &[Timing]) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut add = |label: &str, values: Vec<String>| {
        let mut values: Vec<String> = values.into_iter().filter(|it| !it.is_empty()).collect();
        values.sort();
        values.dedup();
        if !values.is_empty() {
            items.push(Item::new(label, values.join(", ")));
        }
    };
    add(
        "program",
        rows.iter().map(|row| format!("Rampart {}", row.code_version)).collect(),
    );
    let data = |row: &Row| {
        let verified = if row.verified { "verified" } else { "not verified" };
        format!("{} ({verified}), digest {}", row.dataset, row.dataset_digest)
    };
    add("data", rows.iter().map(data).collect());
    add(
        "selection",
        rows.iter().map(|row| format!("best by {}", row.selection)).collect(),
    );
    add("processor", timings.iter().map(|it| it.cpu.clone()).collect());
    add("device", timings.iter().map(|it| it.device.clone()).collect());
    add("threads", timings.iter().map(|it| it.threads.to_string()).collect());
    add("host", timings.iter().map(|it| it.host.clone()).collect());
    let results = std::fs::read(root.join("results.parquet"))?;
    add(
        "results.parquet",
        vec![format!("BLAKE3 {}", blake3::hash(&results).to_hex())],
    );
    Ok(items)
}
