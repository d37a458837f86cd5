use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use candle_core::Device;
use plan::tables::RunTables;
use plan::{Cell, Methods, Plan};
use random::Stream;

use super::{read_matrix, resolve, select};
use crate::claims::{self, About};
use crate::cli::RunArgs;
use crate::device;
use crate::evaluation;
use crate::exit::{Exit, Stop};
use crate::files;
use crate::folder::{self, RunFolder, State};
use crate::manifest::{self, MatrixFacts, Recorder, Settings};
use crate::progress::Progress;
use crate::run::{Compute, Options, Report, run, tidy_temporary};
use crate::tables;

/// What a process claims while it stores and typesets.
pub(crate) const TABLES: &str = "tables";

/// Computes what is missing, then stores and typesets everything that is there.
pub(crate) fn main(args: &RunArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    if args.jobs == Some(0) {
        return Err(Stop::usage("--jobs 0 would never do anything; the smallest is 1"));
    }
    if let Some(threads) = args.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        pool.map_err(|error| Stop::usage(format!("--threads {threads}: {error}")))?;
    }
    let checkpoint_every = Duration::try_from_secs_f64(args.checkpoint_every)
        .map_err(|_| Stop::usage(format!("--checkpoint-every {} is no time", args.checkpoint_every)))?;
    match args.evaluation_batch {
        Some(0) => {
            return Err(Stop::usage(
                "--evaluation-batch 0 would never do anything; the smallest is 1",
            ));
        }
        Some(examples) => evaluation::set_batch(examples),
        None => {}
    }
    device::configure(args.precision, args.deterministic);
    let (device, device_name) = device::parse(&args.device)?;
    let matrix = read_matrix(&args.matrix)?;
    let (plan, data) = resolve(&matrix, &args.matrix, methods, args.data.data_dir.as_deref())?;
    let selected = select(&plan, &args.select)?;
    let cells = match &args.cells {
        Some(file) => named_cells(&plan, file, args.line.unwrap_or(0))?,
        None => plan.needed(&selected),
    };
    if !(args.stale_after.is_finite() && args.stale_after >= 1.0) {
        return Err(Stop::usage("--stale-after must be at least 1 second"));
    }
    let me = About::me(Some(RunTables::of(&plan).digest()), args.force, args.stale_after);
    let run_folder = RunFolder::open(&args.select.out, &plan.name, me, &|line| eprintln!("{line}"))?;
    let root = run_folder.root();
    for folder in ["", tables::FOLDER, manifest::INVOCATIONS] {
        tidy_temporary(&root.join(folder))?;
    }
    if args.cells.is_none() {
        files::write(&root.join(manifest::MATRIX), matrix.source.text.as_bytes())?;
        tables::write_spec(root, &plan)?;
    }
    let jobs = args.jobs.map_or_else(|| default_jobs(&plan, &device), Ok)?;
    let settings = Settings {
        threads: rayon::current_num_threads(),
        jobs,
        evaluation_batch: evaluation::batch(),
        checkpoint_every: args.checkpoint_every,
    };
    let facts = MatrixFacts::of(&matrix, &args.matrix.set, args.matrix.limit, args.matrix.seed);
    let mut recorder = Recorder::begin(root, &plan, &data, facts, &device_name, settings)?;

    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // Only the first handler counts; tests in one process may come here twice.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let progress = Progress::new(cells.len(), stop);
    let _publisher = progress.publish(run_folder.process().progress_file())?;
    let options = Options {
        jobs,
        device,
        device_name,
        fail_fast: args.fail_fast,
        force: args.force,
        compute: if args.gather {
            Compute::Nothing
        } else {
            Compute::Missing
        },
        checkpoint_every,
        invocation: recorder.id().to_string(),
    };
    let report = run(&plan, &cells, &data, &run_folder, &options, &progress).inspect_err(|_| {
        // The error that ended the run says more than one of its record.
        let _ = recorder.note_end(Exit::Unexpected, 0);
    })?;
    progress.finish();

    let exit = match &report {
        Report { interrupted: true, .. } => Exit::Interrupted,
        Report { failed, .. } if failed.iter().any(|(_, it)| it.integrity) => Exit::Integrity,
        Report { failed, left, .. } if !failed.is_empty() || !left.is_empty() => Exit::CellsFailed,
        _ => Exit::Success,
    };
    let turn = match args.cells {
        // Whoever gathers the whole run writes its tables and its manifest.
        Some(_) => None,
        // One at a time, so that the last to gather has seen every cell.
        None => run_folder.process().wait_for(TABLES, &|| progress.interrupted())?,
    };
    let Some(turn) = turn else {
        recorder.note_end(exit, report.ended)?;
        summary(&report, &run_folder, out)?;
        return Ok(exit);
    };
    tidy(&plan, &run_folder)?;
    let text = tables::write(root, &tables::Changes::default())
        .context("the cells are stored, but the tables could not be written")?;
    let digest = recorder
        .end(exit, report.ended)
        .context("the cells are stored, but not the manifest")?;
    turn.drop_all();
    writeln!(out, "{text}")?;
    summary(&report, &run_folder, out)?;
    writeln!(out, "manifest: {}/{}, BLAKE3 {digest}", root.display(), manifest::FILE)?;
    Ok(exit)
}

/// The cells that a line of a file names, separated by blanks.
fn named_cells(plan: &Plan, file: &Path, line: usize) -> Result<Vec<Cell>> {
    let text = std::fs::read_to_string(file).map_err(|error| Stop::usage(format!("{}: {error}", file.display())))?;
    let keys = text.lines().nth(line).unwrap_or_default();
    let known: HashMap<&str, Cell> = plan.cells().map(|cell| (plan.identity(cell).0, cell)).collect();
    let mut cells = Vec::new();
    for key in keys.split_whitespace() {
        let cell = known.get(key).ok_or_else(|| {
            Stop::usage(format!(
                "{}: no cell of the matrix has the key {key}; the program or the matrix is not what it was when this \
                 was submitted: run `harness submit` again",
                file.display()
            ))
        })?;
        cells.push(*cell);
    }
    match cells.is_empty() {
        true => Err(Stop::usage(format!("{} has no cell in line {line}", file.display()))),
        false => Ok(cells),
    }
}

/// Removes what killed processes left of cells that have ended since.
fn tidy(plan: &Plan, run_folder: &RunFolder) -> Result<()> {
    if run_folder.process().others()?.is_empty() {
        let known: HashMap<&str, Cell> = plan.cells().map(|cell| (plan.identity(cell).0, cell)).collect();
        let done = |key: &str| {
            let cell = known.get(key);
            cell.is_some_and(|cell| folder::cell_state(plan, run_folder.root(), *cell) == State::Done)
        };
        claims::tidy(run_folder.process(), &done)?;
    }
    Ok(())
}

/// Small networks leave threads idle, so several cells may share the machine. A large one fills it,
/// and two would need twice the memory.
fn default_jobs(plan: &Plan, device: &Device) -> Result<usize> {
    const SMALL: u64 = 20_000_000;
    // More would wait for each other's launches.
    const ON_ONE_CARD: usize = 4;
    let mut trainings: Vec<_> = plan.trainings.iter().collect();
    trainings.sort_by_key(|it| (&it.network, it.setting.image));
    trainings.dedup_by_key(|it| (&it.network, it.setting.image));
    for training in trainings {
        let network = training.architecture.build(&Device::Cpu, &Stream::new(0))?;
        if network.multiplications()? > SMALL {
            return Ok(1);
        }
    }
    let threads = rayon::current_num_threads();
    Ok(if device.is_cpu() {
        threads
    } else {
        threads.min(ON_ONE_CARD)
    })
}

fn summary(report: &Report, folder: &RunFolder, out: &mut dyn Write) -> Result<()> {
    let root = folder.root().display();
    let Report {
        computed,
        kept,
        elsewhere,
        left,
        failed,
        interrupted,
        ..
    } = report;
    let elsewhere = match elsewhere {
        0 => String::new(),
        cells => format!(", {cells} by other processes"),
    };
    writeln!(
        out,
        "{computed} cells computed{elsewhere}, {kept} kept from before, {} failed",
        failed.len()
    )?;
    if let Some(first) = left.first() {
        let more = match left.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        writeln!(out, "left to compute: {first}{more}")?;
    }
    for (slug, it) in failed {
        writeln!(out, "failed: {slug}: {}", it.error)?;
    }
    if failed.iter().any(|(_, it)| it.repeatable) {
        writeln!(
            out,
            "a diverged training is not tried again; change its recipe, or use --force"
        )?;
    }
    writeln!(
        out,
        "results: {root}/results.parquet, {root}/results.csv; tables: {root}/tables"
    )?;
    if *interrupted {
        writeln!(out, "interrupted; run the same command again to go on")?;
    }
    Ok(())
}
