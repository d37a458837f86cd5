//! What the tables of a run show, in its folder, so that they can be typeset again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use plan::CellName;
use plan::tables::RunTables;
use storage::cell_folder::{RecordedState, cell_folder, recorded_state};
use storage::files;

use crate::exit::Stop;

const SPEC: &str = "tables.json";
/// The folder of typeset tables, in a run's folder.
pub(crate) const FOLDER: &str = "tables";

/// Writes what a run's tables show to its folder.
pub(crate) fn write(root: &Path, tables: &RunTables) -> Result<()> {
    files::write_sealed(&root.join(SPEC), tables)
}

/// Refuses to replace the tables and results of another plan: one with finished cells that this plan does not have. A
/// plan that has only grown goes on.
pub(crate) fn refuse_other_plan(root: &Path, tables: &RunTables) -> Result<()> {
    // Nothing is lost with a file that cannot be read.
    let Ok(Some(before)) = files::read_sealed::<RunTables>(&root.join(SPEC)) else {
        return Ok(());
    };
    let needed: HashSet<&CellName> = tables.cells.iter().collect();
    let is_done = |cell: &CellName| recorded_state(&cell_folder(root, cell)) == RecordedState::Done;
    let done: Vec<&CellName> = before.cells.iter().filter(|cell| is_done(cell)).collect();
    let lost: Vec<&&CellName> = done.iter().filter(|cell| !needed.contains(**cell)).collect();
    let Some(first) = lost.first() else {
        return Ok(());
    };
    Err(Stop::usage(format!(
        "{} holds the results of another plan: {} of its {} finished cells are not part of this one, such as {}. This \
         would replace its tables and results. To keep both, choose another folder with `--out DIR` or another name \
         with `--set name=NAME`. To replace them, add `--replace`: finished cells stay, and those that both plans have \
         are used.",
        root.display(),
        lost.len(),
        done.len(),
        first.readable(),
    )))
}

/// The names of a run's cells, trainings first, and how many of them are trainings.
pub(crate) fn cells(root: &Path) -> Result<(Vec<CellName>, usize)> {
    let spec = read(root)?;
    let trainings = spec.count_trainings();
    Ok((spec.cells, trainings))
}

/// The file in a run's folder, which may come from anywhere: what it names must be in that folder.
pub(crate) fn read(root: &Path) -> Result<RunTables> {
    let file = root.join(SPEC);
    let spec: Option<RunTables> = files::read_sealed(&file)?;
    if let Some(spec) = &spec {
        let mut names = spec.tables.iter().map(|table| &table.id[..]);
        if let Some(name) = names.find(|name| !files::is_plain(name)) {
            return Err(Stop::usage(format!(
                "{} names `{}`, which is not in that folder",
                file.display(),
                name.escape_debug()
            )));
        }
        if spec.planned.len() > spec.cells.len() {
            return Err(Stop::usage(format!(
                "{} names {} cells for {} evaluations; run the matrix again",
                file.display(),
                spec.cells.len(),
                spec.planned.len()
            )));
        }
    }
    spec.ok_or_else(|| {
        Stop::usage(format!(
            "{} is not the folder of a run; runs are in `runs/` unless --out says otherwise",
            root.display()
        ))
    })
}

/// Every file that the spec in a run's folder names, from that folder.
pub(crate) fn named_files(root: &Path) -> Result<Vec<PathBuf>> {
    let spec = read(root)?;
    let cells = spec.cells.iter().map(|cell| Path::new("cells").join(cell));
    let tables = spec.tables.iter().map(|table| Path::new(FOLDER).join(&table.id));
    Ok(cells.chain(tables).collect())
}
