//! The page of a run: everything that is known about it.

use std::path::Path;

use anyhow::Result;
use paper_tables::{CellLine, Item, Report, ReportChart, ReportHeatMap, ReportTable};
use results::{Row, Timing};

use super::warnings::Warnings;
use super::{cells, origin};
use crate::exit::Stop;
use crate::publish::run::FinishedRun;
use crate::publish::{example_images, figures};
use crate::units::{duration, thousands};

/// The page of a run, out of its folder.
pub(crate) fn report(root: &Path) -> Result<Report> {
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
    let flags = results::flags(&rows);
    let warnings = Warnings::of(&flags);
    let charts = figures::charts(&run, &rows)?;
    let bars = paper_tables::overfitting_bars(&rows);
    let tables = run.tables(&rows, &run.comparisons(&rows)?)?;
    let title = rows.first().map_or_else(
        || root.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        |row| row.run.clone(),
    );
    let cells = cells::list(&run, &rows, &timings, &warnings);
    let (examples, left_out) = example_images::of(&run, &rows)?;
    let origin = origin::of(root, &rows, &timings)?;
    Ok(Report {
        title,
        subtitle: "Accuracy of trained networks under attack, with everything behind the numbers.".into(),
        tiles: tiles(&rows, &timings, &cells, flags.len()),
        tables: tables
            .iter()
            .map(|table| ReportTable::new(table, |flag| warnings.mark(flag)))
            .collect(),
        flags: warnings.0.into_iter().map(|warning| warning.shown).collect(),
        heats: paper_tables::transfer_maps(&rows)
            .iter()
            .map(ReportHeatMap::new)
            .collect(),
        charts: charts
            .iter()
            .map(ReportChart::new)
            .chain(bars.iter().map(ReportChart::of_bars))
            .collect(),
        examples_about: example_images::about(left_out),
        examples,
        cell_heads: cells::HEADS.map(String::from).into(),
        cells,
        origin: origin.items,
        records: origin.records,
        matrix: std::fs::read_to_string(root.join("matrix.yaml")).unwrap_or_default(),
    })
}

fn tiles(rows: &[Row], timings: &[Timing], cells: &[CellLine], flags: usize) -> Vec<Item> {
    let count = |state: &str| cells.iter().filter(|cell| cell.state == state).count();
    let mut tiles = vec![
        Item::new("networks trained", trained(rows)),
        Item::new("evaluations done", format!("{} of {}", count("done"), cells.len())),
        Item::new("failed", count("failed")),
        Item::new("missing", count("missing")),
        Item::new("flags", flags),
        Item::new("images attacked", thousands(rows.iter().filter_map(|row| row.n).sum())),
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

fn trained(rows: &[Row]) -> usize {
    let mut networks: Vec<_> = rows
        .iter()
        .map(|row| (&row.dataset, &row.network, &row.defense, &row.recipe, row.seed))
        .collect();
    networks.sort();
    networks.dedup();
    networks.len()
}
