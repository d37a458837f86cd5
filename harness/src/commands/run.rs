use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use candle_core::Device;
use random::Stream;

use super::{read_matrix, resolve, select};
use crate::cli::RunArgs;
use crate::device;
use crate::evaluation;
use crate::exit::{Exit, Stop};
use crate::files;
use crate::folder::RunFolder;
use crate::manifest::{self, MatrixFacts, Recorder, Settings};
use crate::plan::{Methods, Plan};
use crate::progress::Progress;
use crate::run::{Options, Report, run, tidy_temporary};
use crate::tables;

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
    let cells = plan.needed(&selected);
    let run_folder = RunFolder::open(&args.select.out, &plan.name)?;
    let root = run_folder.root();
    for folder in ["", tables::FOLDER, manifest::INVOCATIONS] {
        tidy_temporary(&root.join(folder))?;
    }
    files::write(&root.join(manifest::MATRIX), matrix.source.text.as_bytes())?;
    tables::write_spec(root, &plan)?;
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
    let options = Options {
        jobs,
        device,
        device_name,
        fail_fast: args.fail_fast,
        force: args.force,
        checkpoint_every,
        invocation: recorder.id().to_string(),
    };
    let report = run(&plan, &cells, &data, &run_folder, &options, &progress).inspect_err(|_| {
        // The error that ended the run says more than one of its record.
        let _ = recorder.note_end(Exit::Unexpected, 0);
    })?;
    progress.finish();

    let text = tables::write(root, &[]).context("the cells are stored, but the tables could not be written")?;
    let exit = match &report {
        Report { interrupted: true, .. } => Exit::Interrupted,
        Report { failed, .. } if failed.iter().any(|(_, it)| it.integrity) => Exit::Integrity,
        Report { failed, .. } if !failed.is_empty() => Exit::CellsFailed,
        _ => Exit::Success,
    };
    let digest = recorder
        .end(exit, report.computed)
        .context("the cells are stored, but not the manifest")?;
    writeln!(out, "{text}")?;
    summary(&report, &run_folder, out)?;
    writeln!(out, "manifest: {}/{}, BLAKE3 {digest}", root.display(), manifest::FILE)?;
    Ok(exit)
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
        failed,
        interrupted,
        ..
    } = report;
    writeln!(
        out,
        "{computed} cells computed, {kept} kept from before, {} failed",
        failed.len()
    )?;
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
