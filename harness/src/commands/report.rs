mod cells;
mod origin;

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use paper_tables::{CellLine, Item, Report, ReportChart, ReportFlag, ReportHeatMap, ReportTable};
use results::{Flag, RaisedFlag, Row, Timing};

use crate::cli::ReportArgs;
use crate::commands::plan::{duration, thousands};
use crate::exit::{Exit, Stop};
use crate::figures;
use crate::files;
use crate::galleries;
use crate::manifest;
use crate::tables::Run;

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
    let mut rows = results::read_rows(&file)?;
    run.order(&mut rows);
    let timings = results::read_timings(&root.join("timings.parquet"))?;
    let flags = results::flags(&rows);
    let doubts = Doubts::of(&flags);
    let charts = figures::charts(&run, &rows)?;
    let bars = paper_tables::overfitting_bars(&rows);
    let tables = run.tables(&rows, &run.comparisons(&rows)?)?;
    let title = rows.first().map_or_else(
        || root.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        |row| row.run.clone(),
    );
    let cells = cells::list(&run, &rows, &timings, &doubts);
    let (examples, left_out) = galleries::of(&run, &rows)?;
    let origin = origin::of(root, &rows, &timings)?;
    Ok(Report {
        title,
        subtitle: "Accuracy of trained networks under attack, with everything behind the numbers.".into(),
        tiles: tiles(&rows, &timings, &cells, flags.len()),
        tables: tables
            .iter()
            .map(|table| ReportTable::new(table, |flag| doubts.mark(flag)))
            .collect(),
        flags: doubts.0.into_iter().map(|it| it.doubt).collect(),
        heats: paper_tables::transfer_maps(&rows)
            .iter()
            .map(ReportHeatMap::new)
            .collect(),
        charts: charts
            .iter()
            .map(ReportChart::new)
            .chain(bars.iter().map(ReportChart::of_bars))
            .collect(),
        examples_about: galleries::about(left_out),
        examples,
        cell_heads: cells::HEADS.map(String::from).into(),
        cells,
        origin: origin.items,
        records: origin.records,
        matrix: std::fs::read_to_string(root.join("matrix.yaml")).unwrap_or_default(),
    })
}

fn tiles(rows: &[Row], timings: &[Timing], cells: &[CellLine], flags: usize) -> Vec<Item> {
    let count = |state: &str| cells.iter().filter(|it| it.state == state).count();
    let mut tiles = vec![
        Item::new("networks trained", trained(rows)),
        Item::new("evaluations done", format!("{} of {}", count("done"), cells.len())),
        Item::new("failed", count("failed")),
        Item::new("missing", count("missing")),
        Item::new("flags", flags),
        Item::new("images attacked", thousands(rows.iter().filter_map(|row| row.n).sum())),
        Item::new("computing time", duration(timings.iter().map(|it| it.seconds).sum())),
    ];
    if rows.iter().any(|row| !row.verified) {
        tiles.push(Item::new("data", "unverified"));
    }
    tiles
}

/// Every flag of a run once, in the order in which the page marks them.
struct Doubts(Vec<Raisings>);

struct Raisings {
    flag: Flag,
    doubt: ReportFlag,
    cells: Vec<String>,
}

impl Doubts {
    fn of(flags: &[RaisedFlag]) -> Self {
        let mut doubts: Vec<Raisings> = Vec::new();
        for raised in flags {
            let at = doubts.iter().position(|it| it.flag == raised.flag).unwrap_or_else(|| {
                doubts.push(Raisings {
                    flag: raised.flag,
                    doubt: ReportFlag {
                        mark: (doubts.len() + 1).to_string(),
                        name: raised.flag.to_string(),
                        text: raised.flag.explanation().to_string(),
                        places: Vec::new(),
                    },
                    cells: Vec::new(),
                });
                doubts.len() - 1
            });
            let RaisedFlag {
                dataset,
                network,
                defense,
                seed,
                checkpoint,
                attack,
                detail,
                ..
            } = raised;
            doubts[at].doubt.places.push(format!(
                "{dataset}, {network}, {defense}, seed {seed}, {checkpoint}, {attack}: {detail}"
            ));
            doubts[at].cells.push(raised.cell.clone());
        }
        Self(doubts)
    }

    fn mark(&self, flag: Flag) -> String {
        let known = self.0.iter().find(|it| it.flag == flag);
        known.map_or_else(|| flag.to_string(), |it| it.doubt.mark.clone())
    }

    /// The marks of every cell that has some.
    fn by_cell(&self) -> HashMap<&str, Vec<String>> {
        let mut marks: HashMap<&str, Vec<String>> = HashMap::new();
        for Raisings { doubt, cells, .. } in &self.0 {
            for cell in cells {
                marks.entry(cell).or_default().push(doubt.mark.clone());
            }
        }
        marks
    }
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
