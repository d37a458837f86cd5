//! The outcomes of attacks on a network from a file: a table to print, and files.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use attacks::Setting;
use comfy_table::{CellAlignment, Table, presets};
use plan::{CELLS, CellName};
use results::{PerExample, Row};
use storage::files;

use crate::compute::external::{AttackRequest, Done};
use crate::exit::Stop;

/// Prints accuracies with their 95 % Wilson intervals, the cost of each attack, and flags.
pub(crate) fn print(
    request: &AttackRequest<'_>,
    setting: &Setting,
    done: &[Done],
    rows: &[Row],
    out: &mut dyn Write,
) -> Result<()> {
    if let Some(source) = request.source {
        writeln!(out, "images made on {}, evaluated on", source.file.checkpoint.display())?;
    }
    let data = request.data;
    writeln!(
        out,
        "{} as {} on {} test images of {}{}, {} ≤ {}\n",
        request.network.file.checkpoint.display(),
        request.network.file.model,
        data.test.len(),
        request.dataset,
        if data.dataset.verified {
            ""
        } else {
            " (NOT the official files)"
        },
        setting.threat.norm,
        setting.threat.epsilon,
    )?;
    writeln!(out, "{}", table(setting, done)?)?;
    for row in rows {
        if let (Some(asked), Some(budget)) = (row.queries, row.query_budget) {
            let typical = row.queries_median.map_or("none succeeded".into(), |median| {
                format!(
                    "median until success {median}, mean {:.1}",
                    row.queries_mean.unwrap_or(median)
                )
            });
            writeln!(
                out,
                "{}: {asked} queries, at most {budget} per image; {typical}",
                row.attack
            )?;
        }
    }
    let raised = results::flags(rows);
    for flagged in &raised {
        writeln!(
            out,
            "flag: {}: {}: {} ({})",
            flagged.attack,
            flagged.flag,
            flagged.flag.explanation(),
            flagged.detail
        )?;
    }
    if raised.is_empty() {
        writeln!(out, "no flags")?;
    }
    Ok(())
}

fn table(setting: &Setting, done: &[Done]) -> Result<Table> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "attack",
        "correct",
        "accuracy %",
        "95 % interval",
        "forward / image",
        "backward / image",
    ]);
    for Done { attack, evaluated, .. } in done {
        let (n, correct) = (evaluated.outcomes.len() as u64, evaluated.correct());
        let interval = results::wilson(correct, n).context("an evaluation of no images")?;
        let label = if attack.threat == setting.threat {
            attack.label.clone()
        } else {
            format!("{} ({} ≤ {})", attack.label, attack.threat.norm, attack.threat.epsilon)
        };
        table.add_row([
            label,
            format!("{correct} of {n}"),
            format!("{:.2}", 100.0 * evaluated.accuracy()),
            format!("{:.2} to {:.2}", 100.0 * interval.low, 100.0 * interval.high),
            format!("{:.1}", evaluated.cost.forwards as f64 / n as f64),
            format!("{:.1}", evaluated.cost.backwards as f64 / n as f64),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Ok(table)
}

/// Writes rows, outcomes and times, one folder per attack, and combines them with those that are there already.
pub(crate) fn store(folder: &Path, dataset: &str, rows: &[Row], done: &[Done]) -> Result<()> {
    if folder.join("tables.json").exists() {
        return Err(Stop::usage(format!(
            "{} is the folder of a run; choose another folder with --out",
            folder.display()
        )));
    }
    for (done, row) in done.iter().zip(rows) {
        let slug = format!("{dataset}-{}", done.attack.attack.name);
        let cell = folder.join(CELLS).join(CellName::new(&done.key, &slug));
        files::make_folder(&cell)?;
        results::write_cell(
            &cell,
            std::slice::from_ref(row),
            &done.evaluated.stored(&done.key),
            std::slice::from_ref(&done.timing),
        )?;
    }
    results::combine(folder, &results::cell_folders(folder)?, PerExample::Combine)?;
    Ok(())
}
