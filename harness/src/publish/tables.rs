//! The tables of a run in every format, and everything else that follows from its cells.

use std::path::Path;

use anyhow::{Context, Result};
use paper_tables::{Csv, Exporter, Latex, Markdown};
use results::PerExample;
use storage::files;

use super::figures;
use super::run::{Changes, FinishedRun};
use crate::table_specs::{self, FOLDER};

/// Combines the rows of all finished cells, writes every table in every format, flags, comparisons and figures to the
/// run's folder, and returns the tables in Markdown.
pub(crate) fn write(root: &Path) -> Result<String> {
    derive(root, root, &Changes::default())
}

/// As [`write`], but into the folder `into`, with changes that the run's own tables do not have. The run's folder is
/// only read.
pub(crate) fn derive(root: &Path, into: &Path, changes: &Changes) -> Result<String> {
    let mut run = FinishedRun::read(root)?;
    run.change(changes)?;
    files::make_folder(into)?;
    let mut rows = results::combine(into, &run.folders, PerExample::Combine)?;
    run.order(&mut rows);
    let folder = into.join(FOLDER);
    files::make_folder(&folder)?;
    results::write_flags(&folder.join("flags.csv"), &results::flags(&rows))?;
    let comparisons = run.comparisons(&rows)?;
    results::write_comparisons(&folder.join("significance.csv"), &comparisons)?;
    files::write_part(
        &folder.join("significance.md"),
        paper_tables::significance(&comparisons).as_bytes(),
    )?;
    for figure in figures::all(&run, &rows)? {
        for (extension, text) in [("csv", figure.csv()), ("svg", figure.svg()), ("tex", figure.tex())] {
            let name = format!("{}.{extension}", figure.id());
            files::write_part(&folder.join(name), text.as_bytes())?;
        }
    }
    let recipes = run.recipes();
    if !recipes.is_empty() {
        let texts = [
            ("recipes.md".to_string(), recipes.markdown()),
            ("recipes.csv".to_string(), recipes.csv()),
            ("recipes.tex".to_string(), recipes.latex(Latex::Document)),
            (fragment_file("recipes"), recipes.latex(Latex::Fragment)),
        ];
        for (name, text) in texts {
            files::write_part(&folder.join(name), text.as_bytes())?;
        }
    }
    let mut texts = Vec::new();
    for table in run.tables(&rows, &comparisons)? {
        let exporters: [&dyn Exporter; 3] = [&Csv, &Latex::Document, &Markdown::default()];
        for exporter in exporters {
            let file = folder.join(&table.id).with_extension(exporter.extension());
            files::write_part(&file, exporter.export(&table).as_bytes())?;
        }
        let file = folder.join(fragment_file(&table.id));
        files::write_part(&file, Latex::Fragment.export(&table).as_bytes())?;
        texts.push(Markdown::default().export(&table));
    }
    files::force(&folder)?;
    Ok(texts.join("\n"))
}

/// The file that a paper takes with `\input`. No table's own file begins like it, whatever its name.
fn fragment_file(id: &str) -> String {
    format!("input-{id}.tex")
}

/// The tables of a run in one format, one after the other, as [`derive`] wrote them to the folder `from`.
pub(crate) fn read(root: &Path, from: &Path, extension: &str) -> Result<String> {
    let mut text = String::new();
    for table in table_specs::read(root)?.tables {
        let file = from.join(FOLDER).join(&table.id).with_extension(extension);
        text += &std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text.push('\n');
    }
    Ok(text)
}
