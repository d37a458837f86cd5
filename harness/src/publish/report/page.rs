//! The page of a run: everything that is known about it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use paper_tables::{CellLine, Headline, Item, Report, ReportChart, ReportHeatMap, ReportTable, Settings, headlines};
use results::{Kind, Row, Timing, TimingKind};

use super::details::{Facts, Panels};
use super::warnings::Warnings;
use super::{cells, classes, details, origin};
use crate::exit::Stop;
use crate::publish::run::FinishedRun;
use crate::publish::{example_images, figures};
use crate::units::{duration, thousands};

/// The page begins with no more sentences than a reader takes in.
const HEADLINES: usize = 6;

/// The page of a run, out of its folder. `beside`: it will lie there too, so that it can link to files.
pub(crate) fn report(root: &Path, beside: bool) -> Result<Report> {
    let run = FinishedRun::read(root)?;
    let file = root.join("results.parquet");
    if !file.exists() {
        return Err(Stop::usage(format!(
            "{} has no results yet; run its matrix first",
            root.display()
        )));
    }
    let mut rows = results::read_rows(&file)?;
    run.order(&mut rows);
    let timings = results::read_timings(&root.join("timings.parquet"))?;
    let warnings = Warnings::of(&results::flags(&rows));
    let comparisons = run.comparisons(&rows)?;
    let title = rows.first().map_or_else(
        || root.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        |row| row.run.clone(),
    );
    let panels = Panels::new(&run);
    let cells = cells::list(&run, &rows, &timings, &warnings, &panels);
    let (examples, left_out) = example_images::of(&run, &rows)?;
    let curves = figures::charts(&run, &rows)?;
    let bars = paper_tables::overfitting_bars(&rows);
    let charts: Vec<ReportChart> = curves
        .iter()
        .map(ReportChart::new)
        .chain(bars.iter().map(ReportChart::of_bars))
        .collect();
    let counts = classes::count(&run, &rows)?;
    let trainings = details::trainings(&run);
    let facts = Facts {
        rows: &rows,
        warnings: &warnings,
        classes: &counts,
        charts: &charts,
        examples: &examples,
        trainings: &trainings,
    };
    let described = panels.details(&facts, beside)?;
    let main = run.main_tables(&rows, &comparisons)?;
    let headlines: Vec<Headline> = main
        .iter()
        .flat_map(|table| headlines(table, &run.worst_labels()))
        .take(HEADLINES)
        .collect();
    let shown = run.tables(&rows, &comparisons)?;
    let tables = shown.iter().zip(run.specs()).map(|(table, spec)| {
        let panel = |at| panels.of_entry(spec, at);
        ReportTable::new(table, |flag| warnings.mark(flag), panel)
    });
    let origin = origin::of(root, &rows, &timings)?;
    Ok(Report {
        title,
        subtitle: "Accuracy of trained networks under attack, with everything the numbers rest on.".into(),
        sentences: headlines
            .iter()
            .map(|headline| Item::new(&headline.compared, &headline.outcome))
            .collect(),
        overview: headlines
            .iter()
            .map(|headline| ReportChart::of_bars(&headline.bars))
            .collect(),
        tiles: tiles(&run, &rows, &timings, &cells),
        tables: tables.collect(),
        heats: paper_tables::transfer_maps(&rows)
            .iter()
            .map(ReportHeatMap::new)
            .collect(),
        classes: classes::maps(&rows, &counts)
            .iter()
            .map(ReportHeatMap::of_numbers)
            .collect(),
        charts,
        examples_about: example_images::about(left_out),
        examples,
        cell_heads: cells::HEADS.map(String::from).into(),
        cells,
        details: described,
        settings: Settings::of(&run.recipes(), trainings),
        flags: warnings.0.into_iter().map(|warning| warning.shown).collect(),
        origin: origin.items,
        records: origin.records,
        matrix: std::fs::read_to_string(root.join("matrix.yaml")).unwrap_or_default(),
    })
}

/// Counts, each of which is that of a list in the page: trainings of the plan, evaluations of the list of cells.
fn tiles(run: &FinishedRun, rows: &[Row], timings: &[Timing], cells: &[CellLine]) -> Vec<Item> {
    let count = |state: &str| cells.iter().filter(|cell| cell.state == state).count();
    let trained = timings.iter().filter(|timing| timing.kind == TimingKind::Train);
    let trained: BTreeSet<&str> = trained.map(|timing| timing.cell.as_str()).collect();
    let attacked = rows.iter().filter(|row| row.kind != Kind::Natural);
    let mut tiles = vec![
        Item::new(
            "networks trained",
            format!("{} of {}", trained.len(), run.count_trainings()),
        ),
        Item::new("evaluations done", format!("{} of {}", count("done"), cells.len())),
        Item::new("failed", count("failed")),
        Item::new("missing", count("missing")),
        Item::new("flagged", cells.iter().filter(|cell| !cell.marks.is_empty()).count()),
        Item::new("images attacked", thousands(attacked.filter_map(|row| row.n).sum())),
        Item::new(
            "computing time",
            duration(timings.iter().map(|timing| timing.seconds).sum()),
        ),
    ];
    if rows.iter().any(|row| !row.verified) {
        tiles.push(Item::new("data", "unverified"));
    }
    tiles
}
