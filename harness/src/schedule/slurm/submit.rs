//! Writes the scripts of a plan's job arrays and submits them.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use plan::Cell;
use plan::tables::RunTables;
use plan::{Methods, Plan};
use storage::RunFolder;
use storage::files;
use storage::leases::ProcessInfo;

use super::arrays::{Array, Left, arrays, left};
use super::book::{Book, SLURM};
use super::job::{Job, Kind};
use super::programs::Slurm;
use super::request::SubmitRequest;
use super::resources::Resources;
use super::scripts::Scripts;
use super::shell::{absolute, quoted};
use crate::schedule::request::select;
use crate::stderr::say;
use crate::table_specs;

/// Submits what is neither finished nor queued.
pub(crate) fn submit(request: &SubmitRequest, methods: &Methods, out: &mut dyn Write) -> Result<()> {
    let matrix = request.matrix.read()?;
    let (plan, _) = request.matrix.resolve(&matrix, methods, request.data_dir.as_deref())?;
    let cells = plan.needed(&select(&plan, &request.filter)?);
    let resources = Resources::read(request, &plan)?;
    let slurm = Slurm::find(request.dry_run)?;
    let tables = RunTables::of(&plan);
    let me = ProcessInfo::this(Some(tables.digest()), false, request.stale_after);
    let run_folder = RunFolder::open(&request.out, &plan.name, me, &|line| say(line))?;
    let root = absolute(run_folder.root())?;
    if !request.replace {
        table_specs::refuse_other_plan(&root, &tables)?;
    }
    files::write(&root.join("matrix.yaml"), matrix.source.text.as_bytes())?;
    table_specs::write(&root, &tables)?;

    let book = Book::read(&root, &slurm)?;
    let left = left(&plan, &root, &cells, &book);
    print_remaining(&left, out)?;
    if left.cells.is_empty() {
        return Ok(());
    }
    let folder = root.join(SLURM).join((book.submissions + 1).to_string());
    files::make_folder(&folder.join("logs"))?;
    // The tasks read a copy, which stays unchanged while the user edits the matrix.
    let copy = folder.join("matrix.yaml");
    files::write(&copy, matrix.source.text.as_bytes())?;
    let scripts = Scripts {
        request,
        plan: &plan,
        resources: &resources,
        root: &root,
        folder: &folder,
        matrix: &copy,
    };
    let arrays = arrays(&plan, &root, &left.cells, &book, slurm.largest_index);
    let jobs = submit_arrays(&arrays, &scripts, &slurm, &book, out)?;

    let mut task = "--gather".to_string();
    for filter in &request.filter {
        task += &format!(" --filter {}", quoted(filter));
    }
    let script = scripts.write("tables", Kind::Tables, None, &[], &task)?;
    let mut all: Vec<&str> = book.jobs.iter().chain(&jobs).map(|job| job.id.as_str()).collect();
    all.sort_unstable();
    all.dedup();
    slurm.submit(&script, &[format!("afterany:{}", all.join(":"))], out)?;
    print_end(&jobs, request.dry_run, &folder, run_folder.root(), out)
}

/// Submits one array after another and records each job.
fn submit_arrays(
    arrays: &[Array],
    scripts: &Scripts<'_>,
    slurm: &Slurm,
    book: &Book,
    out: &mut dyn Write,
) -> Result<Vec<Job>> {
    let Scripts {
        request,
        plan,
        root,
        folder,
        ..
    } = scripts;
    let mut jobs: Vec<Job> = Vec::new();
    for array in arrays {
        let name = format!("{:03}-{}", jobs.len() + 1, array.name);
        let list = folder.join(format!("{name}.cells"));
        files::write(&list, array.lines(plan).as_bytes())?;
        let limit = request
            .array_limit
            .map_or_else(String::new, |limit| format!("%{limit}"));
        let script = scripts.write(
            &name,
            array.kind,
            Some(&array.network),
            &[format!("--array={}{limit}", array.indices())],
            &format!("--cells {} --line \"$SLURM_ARRAY_TASK_ID\"", quoted(&list)),
        )?;
        let id = slurm.submit(&script, &array.after(&jobs), out)?;
        jobs.push(Job {
            id,
            tasks: keys(array, plan),
        });
        if !request.dry_run {
            book.note(root, book.submissions + 1, &jobs)?;
        }
    }
    Ok(jobs)
}

fn keys(array: &Array, plan: &Plan) -> std::collections::BTreeMap<u32, String> {
    let key = |(index, cell): (&u32, &Cell)| (*index, plan.identity(*cell).0.to_string());
    array.tasks.iter().map(key).collect()
}

fn print_remaining(left: &Left, out: &mut dyn Write) -> Result<()> {
    let Left {
        cells,
        queued,
        done,
        hopeless,
    } = left;
    writeln!(
        out,
        "{} cells to submit, {queued} queued or running already, {done} done, {hopeless} failed for good",
        cells.len()
    )?;
    if *hopeless > 0 {
        writeln!(
            out,
            "a diverged training is not tried again; change its recipe, or use `run --force`"
        )?;
    }
    Ok(())
}

fn print_end(jobs: &[Job], dry_run: bool, folder: &Path, run: &Path, out: &mut dyn Write) -> Result<()> {
    if dry_run {
        writeln!(out, "nothing was submitted; the scripts are in {}", folder.display())?;
        return Ok(());
    }
    let tasks: usize = jobs.iter().map(|job| job.tasks.len()).sum();
    writeln!(
        out,
        "{tasks} tasks in {} arrays submitted; `rampart status {}` shows their progress",
        jobs.len(),
        run.display(),
    )?;
    Ok(())
}
