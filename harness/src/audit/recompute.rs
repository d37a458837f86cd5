//! Computes cells of a run again into a temporary folder and compares every byte.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use candle_core::Device;
use comfy_table::{Table, presets};
use plan::Cell;
use plan::{Methods, Plan};
use storage::RunFolder;
use storage::cell_folder::{self, State};
use storage::files;
use storage::leases::{self, ProcessInfo};
use storage::manifest::{self, Manifest};

use super::run::request;
use crate::exit::Stop;
use crate::progress::{self, Progress};
use crate::schedule::select;
use crate::schedule::{Compute, Options, run};
use crate::stderr::say;

/// Which cells to compute again, and how.
pub(crate) struct RecomputeRequest<'a> {
    /// The run's folder.
    pub(crate) run: &'a Path,
    /// A number of evaluations, or `all`.
    pub(crate) cells: &'a str,
    pub(crate) filter: &'a [String],
    /// Use the run's own networks.
    pub(crate) keep_trainings: bool,
    pub(crate) data_dir: Option<&'a Path>,
    pub(crate) device: Device,
    pub(crate) device_name: String,
    pub(crate) jobs: usize,
}

/// A run with some of its cells computed again.
pub(crate) struct Recomputed {
    root: PathBuf,
    plan: Plan,
    cells: Vec<Cell>,
    keep_trainings: bool,
    /// The folder of the cells that were computed now.
    again: PathBuf,
    _folder: tempfile::TempDir,
}

/// Computes the cells again. `None`: interrupted.
pub(crate) fn recompute(asked: RecomputeRequest<'_>, methods: &Methods) -> Result<Option<Recomputed>> {
    let manifest = Manifest::read(asked.run).map_err(|error| Stop::usage(format!("{error:#}")))?;
    let manifest = manifest.ok_or_else(|| {
        Stop::usage(format!(
            "{} has no {}: it is not a run, or one that has not ended yet",
            asked.run.display(),
            manifest::FILE
        ))
    })?;
    let request = request(asked.run, &manifest);
    let (plan, data) = request.resolve(&request.read()?, methods, asked.data_dir)?;
    let chosen = choose(asked.cells, &plan, asked.run, select(&plan, asked.filter)?)?;
    let cells = plan.needed(&chosen);

    let folder = tempfile::tempdir().context("cannot make a temporary folder; set TMPDIR to another place")?;
    let me = ProcessInfo::this(None, false, leases::STALE_AFTER);
    let again = RunFolder::open(folder.path(), &plan.name, me, &|line| say(line))?;
    if asked.keep_trainings {
        for &cell in cells.iter().filter(|cell| matches!(cell, Cell::Training(_))) {
            copy(&plan.folder(asked.run, cell), &plan.folder(again.root(), cell))?;
        }
    }
    let progress = Progress::new(cells.len(), progress::stop_on_signal());
    let options = Options {
        device: asked.device,
        device_name: asked.device_name,
        jobs: asked.jobs,
        fail_fast: false,
        force: false,
        compute: Compute::Missing,
        checkpoint_every: Duration::MAX,
        invocation: "verify".into(),
    };
    let report = run(&plan, &cells, &data, &again, &options, &progress)?;
    progress.finish();
    if report.interrupted {
        return Ok(None);
    }
    Ok(Some(Recomputed {
        root: asked.run.to_path_buf(),
        plan,
        cells,
        keep_trainings: asked.keep_trainings,
        again: again.root().to_path_buf(),
        _folder: folder,
    }))
}

impl Recomputed {
    /// Compares each cell with the run's and prints how they differ. Returns how many do.
    pub(crate) fn compare(&self, out: &mut dyn Write) -> Result<usize> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["cell", "computed again"]);
        let mut differ = 0;
        for &cell in &self.cells {
            let verdict = if self.keep_trainings && matches!(cell, Cell::Training(_)) {
                "taken from the run".to_string()
            } else {
                let differences = compare(
                    &self.plan.folder(&self.root, cell),
                    &self.plan.folder(&self.again, cell),
                )?;
                differ += usize::from(!differences.is_empty());
                if differences.is_empty() {
                    "the same bytes".to_string()
                } else {
                    differences.join("; ")
                }
            };
            table.add_row([self.plan.identity(cell).1, &verdict]);
        }
        writeln!(out, "{}", table.trim_fmt())?;
        writeln!(
            out,
            "{}: {differ} of {} cells differ, chosen among {}",
            self.root.display(),
            self.cells.len(),
            self.plan.cells().count()
        )?;
        if differ > 0 {
            writeln!(
                out,
                "on another kind of processor or device, last bits may differ: docs/reliability.md says how far"
            )?;
        }
        Ok(differ)
    }
}

/// The first K of the finished evaluations, in an order that depends on their keys alone.
fn choose(wanted: &str, plan: &Plan, root: &Path, mut selected: Vec<usize>) -> Result<Vec<usize>> {
    let count = match wanted {
        "all" => usize::MAX,
        number => number
            .parse()
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| Stop::usage(format!("--cells {number} is neither a number of cells nor `all`")))?,
    };
    selected.retain(|&i| {
        let state = cell_folder::cell_state(plan, root, Cell::Evaluation(i));
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
    let old_status = match cell_folder::status(old) {
        Ok(Some(status)) => status,
        Ok(None) => return Ok(vec!["the run's is not finished".into()]),
        Err(error) => return Ok(vec![format!("{error:#}")]),
    };
    let Some(new_status) = cell_folder::status(new)? else {
        return Ok(vec!["it was not computed, because a cell it needs failed".into()]);
    };
    if let Some(failed) = new_status.failed {
        return Ok(vec![format!("it failed: {}", failed.error)]);
    }
    let mut differences = Vec::new();
    for name in old_status.files.keys().chain(new_status.files.keys()) {
        let bytes = |folder: &Path| std::fs::read(folder.join(name)).ok();
        if name == results::TIMINGS_FILE
            || bytes(old) == bytes(new)
            || differences.iter().any(|(known, _)| known == name)
        {
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

/// The differences between two tables.
fn describe(name: &str, old: &Path, new: &Path) -> Result<String> {
    Ok(match name {
        results::ROWS_FILE => {
            let rows = |folder: &Path| results::read_rows(&folder.join(name));
            let count = |rows: &[results::Row]| rows.first().and_then(|row| row.n_correct);
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
            format!(": {other} of {} images have a different class", old.len())
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
