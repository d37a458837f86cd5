use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use candle_core::Device;
use random::Stream;

use super::{read_matrix, resolve, select};
use crate::cli::RunArgs;
use crate::device;
use crate::exit::{Exit, Stop};
use crate::files;
use crate::folder::RunFolder;
use crate::plan::{Methods, Plan};
use crate::progress::Progress;
use crate::run::{Options, Report, run};
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
    device::configure(args.precision, args.deterministic);
    let (device, device_name) = device::parse(&args.device)?;
    let matrix = read_matrix(&args.matrix)?;
    let (plan, data) = resolve(&matrix, &args.matrix, methods, args.data.data_dir.as_deref())?;
    let selected = select(&plan, &args.select)?;
    let cells = plan.needed(&selected);
    let run_folder = RunFolder::open(&args.select.out, &plan.name)?;
    files::write(&run_folder.root().join("matrix.yaml"), matrix.source.text.as_bytes())?;
    tables::write_spec(run_folder.root(), &plan)?;

    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // Only the first handler counts; tests in one process may come here twice.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let progress = Progress::new(cells.len(), stop);
    let options = Options {
        jobs: args.jobs.map_or_else(|| default_jobs(&plan, &device), Ok)?,
        device,
        device_name,
        fail_fast: args.fail_fast,
        force: args.force,
    };
    let report = run(&plan, &cells, &data, &run_folder, &options, &progress)?;
    progress.finish();

    let text =
        tables::write(run_folder.root(), &[]).context("the cells are stored, but the tables could not be written")?;
    writeln!(out, "{text}")?;
    summary(&report, &run_folder, out)?;
    Ok(match &report {
        Report { interrupted: true, .. } => Exit::Interrupted,
        Report { failed, .. } if failed.iter().any(|(_, it)| it.integrity) => Exit::Integrity,
        Report { failed, .. } if !failed.is_empty() => Exit::CellsFailed,
        _ => Exit::Success,
    })
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
