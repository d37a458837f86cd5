//! What `harness attack` prints and writes.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::Device;
use comfy_table::{CellAlignment, Table, presets};
use models::Classifier;
use plan::{CELLS, folder_name};
use results::{PerExample, Row};

use super::{AttackArgs, Done, stopped};
use crate::commands::verify_examples;
use crate::data::{Data, plain_batch};
use crate::evaluation::query_budget;
use crate::examples::{About, Examples};
use crate::exit::Stop;
use crate::external::External;
use crate::failure::Failure;
use crate::files;

/// The table: accuracy with its 95 % Wilson interval, and what the attack cost.
pub(super) fn show(
    args: &AttackArgs,
    setting: &attacks::Setting,
    data: &Data,
    done: &[Done],
    rows: &[Row],
    out: &mut dyn Write,
) -> Result<()> {
    if let Some(source) = &args.source {
        writeln!(out, "images made on {}, counted on", source.display())?;
    }
    writeln!(
        out,
        "{} as {} on {} test images of {}{}, {} ≤ {}\n",
        args.network.checkpoint.display(),
        args.network.model,
        data.test.len(),
        args.dataset,
        if data.dataset.verified {
            ""
        } else {
            " (NOT the official files)"
        },
        setting.threat.norm,
        setting.threat.epsilon,
    )?;
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
    for it in done {
        let (n, correct) = (it.judged.outcomes.len() as u64, it.judged.correct());
        let interval = results::wilson(correct, n).context("an evaluation of no images")?;
        let label = match it.judge.threat == setting.threat {
            true => it.judge.label.clone(),
            false => format!(
                "{} ({} ≤ {})",
                it.judge.label, it.judge.threat.norm, it.judge.threat.epsilon
            ),
        };
        table.add_row([
            label,
            format!("{correct} of {n}"),
            format!("{:.2}", 100.0 * it.judged.accuracy()),
            format!("{:.2} to {:.2}", 100.0 * interval.low, 100.0 * interval.high),
            format!("{:.1}", it.judged.cost.forwards as f64 / n as f64),
            format!("{:.1}", it.judged.cost.backwards as f64 / n as f64),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(out, "{table}")?;
    for row in rows {
        if let (Some(asked), Some(budget)) = (row.queries, row.query_budget) {
            let typical = row.queries_median.map_or("none succeeded".into(), |it| {
                format!("median until success {it}, mean {:.1}", row.queries_mean.unwrap_or(it))
            });
            writeln!(
                out,
                "{}: {asked} queries, at most {budget} per image; {typical}",
                row.attack
            )?;
        }
    }
    let raised = results::flags(rows);
    for it in &raised {
        writeln!(
            out,
            "flag: {}: {}: {} ({})",
            it.attack,
            it.flag,
            it.flag.explanation(),
            it.detail
        )?;
    }
    if raised.is_empty() {
        writeln!(out, "no flags")?;
    }
    Ok(())
}

/// Rows, outcomes and times, one folder per attack, then combined with what was there before.
pub(super) fn store(folder: &Path, args: &AttackArgs, rows: &[Row], done: &[Done]) -> Result<()> {
    if folder.join("tables.json").exists() {
        return Err(Stop::usage(format!(
            "{} is the folder of a run; choose another place with --out",
            folder.display()
        )));
    }
    for (it, row) in done.iter().zip(rows) {
        let slug = format!("{}-{}", args.dataset, it.judge.attack.name);
        let cell = folder.join(CELLS).join(folder_name(&it.key, &slug));
        files::make_folder(&cell)?;
        results::write_cell(
            &cell,
            std::slice::from_ref(row),
            &it.judged.stored(&it.key),
            std::slice::from_ref(&it.timing),
        )?;
    }
    results::combine(folder, &results::cell_folders(folder)?, PerExample::Combine)?;
    Ok(())
}

pub(super) fn row(args: &AttackArgs, network: &External, data: &Data, it: &Done) -> Row {
    let about = it.judge.attack.method.describe();
    let natural = it.judge.attack.name == "natural";
    let row = Row {
        cell: it.key.clone(),
        run: "attack".into(),
        dataset: args.dataset.clone(),
        dataset_digest: data.dataset.digest.clone(),
        verified: data.dataset.verified,
        network: args.network.model.clone(),
        defense: name_of(&args.network.checkpoint),
        defense_name: format!("checkpoint {}", network.digest),
        defense_version: 0,
        recipe: "unknown".into(),
        seed: args.seed,
        checkpoint: results::Checkpoint::Last,
        selection: results::Selection::None,
        attack: it.judge.label.clone(),
        attack_name: it.judge.attack.name.to_string(),
        attack_version: Some(it.judge.attack.version),
        kind: match natural {
            true => results::Kind::Natural,
            false if args.source.is_some() => results::Kind::Transfer,
            false if it.judge.attack.method.by_queries() => results::Kind::Query,
            false => results::Kind::WhiteBox,
        },
        source: args.source.as_deref().filter(|_| !natural).map(name_of),
        norm: (!natural).then(|| it.judge.threat.norm.to_string()),
        epsilon: (!natural).then(|| it.judge.threat.epsilon.to_string()),
        epsilon_value: (!natural).then(|| it.judge.threat.epsilon.value()),
        steps: about.steps,
        step_size: about.step_size.map(|it| it.to_string()),
        step_size_value: about.step_size.map(attacks::Pixels::value),
        restarts: about.restarts,
        loss: about.loss,
        start: about.start,
        batch_norm: about.batch_norm,
        config_hash: it.key.clone(),
        code_version: env!("CARGO_PKG_VERSION").to_string(),
        ..Row::default()
    };
    let attack = it.judge.attack.method.as_ref();
    it.judged.complete(row, query_budget(attack, network.network.classes()))
}

/// A checkpoint as rows name it: its file.
fn name_of(checkpoint: &Path) -> String {
    checkpoint
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Reads the examples just written and counts again. Fails, and takes the file away, if that gives another count.
pub(super) fn check_saved(file: &Path, network: &External, correct: u64) -> Result<()> {
    let again = Examples::read(file)?;
    let clean = again.clean.as_ref().expect("written with its clean images");
    let counted = verify_examples::judge(network, clean, &again)?;
    match counted {
        Some((_, counted)) if counted == correct => Ok(()),
        counted => {
            std::fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
            let counted = counted.map_or("logits that are not finite".into(), |(_, it)| {
                format!("{it} still correct")
            });
            Err(stopped(Failure::Integrity(format!(
                "{} was read again and gives {counted}, not {correct}; it was removed",
                file.display()
            ))))
        }
    }
}

pub(super) fn examples(
    args: &AttackArgs,
    network: &External,
    data: &Data,
    it: &Done,
    device: &Device,
) -> Result<Examples> {
    let batch = plain_batch(&data.dataset.test, &data.test, device)?;
    Ok(Examples {
        adversarial: it.adversarial.clone(),
        clean: Some(batch.images),
        labels: batch.labels.to_vec1()?,
        ids: Some(batch.ids),
        about: Some(About {
            dataset: args.dataset.clone(),
            dataset_digest: data.dataset.digest.clone(),
            model: args.network.model.clone(),
            checkpoint: network.digest.clone(),
            threat: it.judge.threat,
            attack: it.judge.attack.name.to_string(),
            config: it.judge.attack.config.clone(),
            seed: args.seed,
            correct: it.judged.correct(),
        }),
    })
}
