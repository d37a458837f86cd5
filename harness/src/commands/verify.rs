use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{Table, presets};
use plan::{Cell, Methods, Plan};

use super::{read_matrix, resolve, select};
use crate::claims::{self, About};
use crate::cli::{DataArgs, MatrixArgs, SelectArgs};
use crate::exit::{Exit, Stop};
use crate::folder::{self, RunFolder, State};
use crate::manifest::{self, Manifest};
use crate::progress::Progress;
use crate::run::{Compute, Options, run};
use crate::{device, files};

/// Which cells to compute again.
#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyRunArgs {
    /// The folder of a run, such as `runs/digits`.
    pub(crate) run: PathBuf,
    /// How many evaluations, with the trainings they need: the same ones whenever a run is verified, or `all`.
    #[arg(long, value_name = "K", default_value = "3")]
    pub(crate) cells: String,
    /// Only cells where `dataset`, `network`, `defense`, `attack`, `checkpoint` or `seed` has this value, as in
    /// `defense=mart`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Attack the run's own networks instead of training them again.
    #[arg(long)]
    pub(crate) keep_trainings: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Where tensors live: `cpu`, `cuda`, `cuda:N`, or `auto`.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// How a GPU multiplies in convolutions: `tf32`, `f32` or `bf16`.
    #[arg(long, default_value = "tf32")]
    pub(crate) precision: kernels::device::Precision,
    /// On a GPU, the same bits whenever the same is computed on the same card.
    #[arg(long)]
    pub(crate) deterministic: bool,
    /// Cells at work at once.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) jobs: usize,
}

/// Computes cells again into a temporary folder and compares them with the run's.
pub(crate) fn main(args: &VerifyRunArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    device::configure(args.precision, args.deterministic);
    let (device, device_name) = device::parse(&args.device)?;
    let manifest = Manifest::read(&args.run).map_err(|error| Stop::usage(format!("{error:#}")))?;
    let manifest = manifest.ok_or_else(|| {
        Stop::usage(format!(
            "{} has no {}: it is no run, or one that never came to its end",
            args.run.display(),
            manifest::FILE
        ))
    })?;
    let asked = MatrixArgs {
        matrix: args.run.join(manifest::MATRIX),
        set: manifest.matrix.set.clone(),
        limit: manifest.matrix.limit,
        seed: manifest.matrix.seed,
    };
    let matrix = read_matrix(&asked)?;
    let (plan, data) = resolve(&matrix, &asked, methods, args.data.data_dir.as_deref())?;
    let selected = select(
        &plan,
        &SelectArgs {
            filter: args.filter.clone(),
            out: PathBuf::new(),
        },
    )?;
    let chosen = choose(&args.cells, &plan, &args.run, selected)?;
    let cells = plan.needed(&chosen);

    let folder = tempfile::tempdir().context("cannot make a temporary folder; set TMPDIR to another place")?;
    let again = RunFolder::open(
        folder.path(),
        &plan.name,
        About::me(None, false, claims::STALE_AFTER),
        &|line| eprintln!("{line}"),
    )?;
    if args.keep_trainings {
        for &cell in cells.iter().filter(|it| matches!(it, Cell::Training(_))) {
            copy(&plan.folder(&args.run, cell), &plan.folder(again.root(), cell))?;
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // Only the first handler counts; tests in one process may come here twice.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let progress = Progress::new(cells.len(), stop);
    let options = Options {
        device,
        device_name,
        jobs: args.jobs,
        fail_fast: false,
        force: false,
        compute: Compute::Missing,
        checkpoint_every: Duration::MAX,
        invocation: "verify".into(),
    };
    let report = run(&plan, &cells, &data, &again, &options, &progress)?;
    progress.finish();
    if report.interrupted {
        return Ok(Exit::Interrupted);
    }

    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["cell", "computed again"]);
    let mut differ = 0;
    for &cell in &cells {
        let slug = plan.identity(cell).1;
        let kept = args.keep_trainings && matches!(cell, Cell::Training(_));
        let differences = match kept {
            true => Vec::new(),
            false => compare(&plan.folder(&args.run, cell), &plan.folder(again.root(), cell))?,
        };
        differ += usize::from(!differences.is_empty());
        let verdict = match (kept, differences.is_empty()) {
            (true, _) => "taken from the run".to_string(),
            (false, true) => "the same bytes".to_string(),
            (false, false) => differences.join("; "),
        };
        table.add_row([slug, &verdict]);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    writeln!(
        out,
        "{}: {differ} of {} cells differ, chosen among {}",
        args.run.display(),
        cells.len(),
        plan.cells().count()
    )?;
    if differ > 0 {
        writeln!(
            out,
            "on another kind of processor or device, last bits may differ: docs/reliability.md says how far"
        )?;
    }
    Ok(match differ {
        0 => Exit::Success,
        _ => Exit::Integrity,
    })
}

/// The first K of the finished evaluations, in an order that depends on their keys alone.
fn choose(wanted: &str, plan: &Plan, root: &Path, mut selected: Vec<usize>) -> Result<Vec<usize>> {
    let count = match wanted {
        "all" => usize::MAX,
        number => number
            .parse()
            .ok()
            .filter(|it| *it > 0)
            .ok_or_else(|| Stop::usage(format!("--cells {number} is neither a number of cells nor `all`")))?,
    };
    selected.retain(|&i| {
        let state = folder::cell_state(plan, root, Cell::Evaluation(i));
        matches!(state, State::Done | State::Damaged(_))
    });
    if selected.is_empty() {
        return Err(Stop::usage(format!(
            "none of these cells is finished in {}; run its matrix first, with the program that verifies",
            root.display()
        )));
    }
    selected.sort_by_key(|&i| *blake3::hash(plan.evaluations[i].key.as_bytes()).as_bytes());
    selected.truncate(count);
    Ok(selected)
}

/// How a cell that was computed again differs from the run's; its times may.
fn compare(old: &Path, new: &Path) -> Result<Vec<String>> {
    let old_status = match folder::status(old) {
        Ok(Some(status)) => status,
        Ok(None) => return Ok(vec!["the run's is not finished".into()]),
        Err(error) => return Ok(vec![format!("{error:#}")]),
    };
    let Some(new_status) = folder::status(new)? else {
        return Ok(vec!["it was not computed, because a cell it needs failed".into()]);
    };
    if let Some(failed) = new_status.failed {
        return Ok(vec![format!("it failed: {}", failed.error)]);
    }
    let mut differences = Vec::new();
    for name in old_status.files.keys().chain(new_status.files.keys()) {
        let bytes = |folder: &Path| std::fs::read(folder.join(name)).ok();
        if name == results::TIMINGS_FILE || bytes(old) == bytes(new) || differences.iter().any(|(it, _)| it == name) {
            continue;
        }
        let more = describe(name, old, new).unwrap_or_else(|error| format!("{error:#}"));
        differences.push((name.clone(), more));
    }
    Ok(differences
        .into_iter()
        .map(|(name, more)| format!("{name} differs{more}"))
        .collect())
}

/// What two tables disagree about.
fn describe(name: &str, old: &Path, new: &Path) -> Result<String> {
    Ok(match name {
        results::ROWS_FILE => {
            let rows = |folder: &Path| results::read_rows(&folder.join(name));
            let count = |rows: &[results::Row]| rows.first().and_then(|it| it.n_correct);
            let (old, new) = (rows(old)?, rows(new)?);
            match (count(&old), count(&new)) {
                (Some(old), Some(new)) => format!(": {old} images correct then, {new} now"),
                _ => String::new(),
            }
        }
        results::OUTCOMES_FILE => {
            let outcomes = |folder: &Path| results::read_outcomes(&folder.join(name));
            let (old, new) = (outcomes(old)?, outcomes(new)?);
            let other = old
                .iter()
                .zip(&new)
                .filter(|(old, new)| old.predicted != new.predicted)
                .count();
            format!(": {other} of {} images are classified otherwise", old.len())
        }
        _ => String::new(),
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    files::make_folder(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))
            .with_context(|| format!("cannot copy {}", entry.path().display()))?;
    }
    Ok(())
}
