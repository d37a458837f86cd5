use std::io::Write;

use anyhow::{Context, Result};
use plan::Methods;
use plan::tables::RunTables;
use storage::RunFolder;
use storage::leases::ProcessInfo;
use storage::manifest::{self, Ending, Machine, Origin, Recorder, Settings};

use super::args::RunArgs;
use crate::compute::evaluation;
use crate::compute::provenance;
use crate::exit::Exit;
use crate::progress::{self, Progress};
use crate::publish::gather;
use crate::schedule::{Compute, Options, run};
use crate::schedule::{default_jobs, exit_of, named_cells, print_report, select};
use crate::stderr::say;
use crate::table_specs;

/// Computes what is missing, then stores and typesets everything that is finished.
pub(super) fn main(args: &RunArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    let checkpoint_every = args.configure()?;
    let (device, device_name) = args.device.open()?;
    let request = args.matrix.request();
    let matrix = request.read()?;
    let (plan, data) = request.resolve(&matrix, methods, args.data.data_dir.as_deref())?;
    let selected = select(&plan, &args.select.filter)?;
    let cells = match &args.cells {
        Some(file) => named_cells(&plan, file, args.line.unwrap_or(0))?,
        None => plan.needed(&selected),
    };
    let tables = RunTables::of(&plan);
    let me = ProcessInfo::this(Some(tables.digest()), args.force, args.stale_after);
    let run_folder = RunFolder::open(&args.select.out, &plan.name, me, &|line| say(line))?;
    let root = run_folder.root();
    if args.cells.is_none() && !args.replace.replace {
        table_specs::refuse_other_plan(root, &tables)?;
    }
    gather::tidy_folders(root)?;
    if args.cells.is_none() {
        gather::begin(root, &matrix, &plan, &tables)?;
    }
    let jobs = args.jobs.map_or_else(|| default_jobs(&plan, &device), Ok)?;
    let settings = Settings {
        threads: rayon::current_num_threads(),
        jobs,
        evaluation_batch: evaluation::batch(),
        checkpoint_every: args.checkpoint_every,
    };
    let origin = Origin {
        matrix: provenance::matrix(&matrix, &args.matrix.set, args.matrix.limit, args.matrix.seed),
        plan: provenance::plan(&plan),
        datasets: provenance::datasets(&plan, &data),
        program: provenance::program(),
        machine: Machine::this(&kernels::instructions().to_string(), &device_name),
        settings,
    };
    let mut recorder = Recorder::begin(root, origin)?;
    let progress = Progress::new(cells.len(), progress::stop_on_signal());
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
        // The error that ended the run is more useful than one from recording it.
        let _ = recorder.note_end(ending(Exit::Unexpected, 0));
    })?;
    progress.finish();
    let exit = exit_of(&report);
    // A process that computes a part leaves tables and manifest to the one that gathers the whole run.
    let turn = match args.cells {
        Some(_) => None,
        None => gather::wait_for_turn(&run_folder, &progress)?,
    };
    let Some(turn) = turn else {
        recorder.note_end(ending(exit, report.ended))?;
        print_report(&report, root, out)?;
        return Ok(exit);
    };
    let text = gather::typeset(&plan, &run_folder)?;
    let digest = recorder
        .end(ending(exit, report.ended))
        .context("the cells are stored, but not the manifest")?;
    turn.abandon();
    writeln!(out, "{text}")?;
    print_report(&report, root, out)?;
    writeln!(out, "manifest: {}/{}, BLAKE3 {digest}", root.display(), manifest::FILE)?;
    Ok(exit)
}

/// How an invocation ends, for its record.
fn ending(exit: Exit, cells_ended: usize) -> Ending {
    Ending {
        exit: exit as u8,
        cut_short: matches!(exit, Exit::Interrupted | Exit::Unexpected),
        cells_ended,
    }
}
