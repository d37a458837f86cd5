//! Tables on disk: one file per table and cell, and the run's tables combined from them.
//!
//! A cell has at most one row, and one of times: sealed JSON, since polars estimates for every column of a Parquet file
//! how many of its values are distinct, which for one row takes longer than all else. Outcomes and the run's tables are Parquet.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Cursor, Write};
use std::path::{Path, PathBuf};

use polars::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::atomic::{Force, force_folder, spend, write_atomically};
use crate::bounds;
use crate::flags::Raised;
use crate::row::{Outcome, Row, Timing};
use crate::seal;
use crate::sealed;
use crate::significance::Comparison;
use crate::table::Table;

/// A cell's rows, in its folder.
pub const ROWS_FILE: &str = "rows.json";
/// A cell's outcomes per image, in its folder.
pub const OUTCOMES_FILE: &str = "outcomes.parquet";
/// A cell's times, in its folder.
pub const TIMINGS_FILE: &str = "timings.json";

/// The result of storing or reading a table.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a table could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused to write.
    #[error(
        "cannot write `{}`: check that its folder exists, may be written to and has space left",
        file.display()
    )]
    Write {
        /// The file.
        file: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The file system refused to read.
    #[error("cannot read `{}`: check that it exists and may be read", file.display())]
    Read {
        /// The file or folder.
        file: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The file is cut short, damaged, or not a table of this program.
    #[error("`{}` is not a table of results: {reason}; delete it and run again to make it anew", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Whether [`combine`] also combines the outcomes per image, by far the largest table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PerExample {
    /// Write `per_example.parquet`.
    Combine,
    /// Do not even read them.
    Skip,
}

/// Stores what a cell found in its folder: [`OUTCOMES_FILE`], [`TIMINGS_FILE`] and, last,
/// [`ROWS_FILE`], so that a cell with rows has everything.
///
/// Each file appears whole or not at all; none is forced to disk. An empty table is a file without rows.
pub fn write_cell(folder: &Path, rows: &[Row], outcomes: &[Outcome], timings: &[Timing]) -> Result<()> {
    let mut rows = rows.to_vec();
    rows.sort_by(order);
    let mut outcomes = outcomes.to_vec();
    outcomes.sort_by(|a, b| (&a.cell, a.example).cmp(&(&b.cell, b.example)));
    write_parquet(&folder.join(OUTCOMES_FILE), Force::Later, &outcomes)?;
    write_json(&folder.join(TIMINGS_FILE), timings)?;
    write_json(&folder.join(ROWS_FILE), &rows)
}

/// The folders of a run that hold a cell's rows, `<run>/cells/*`, by name.
pub fn cell_folders(run: &Path) -> Result<Vec<PathBuf>> {
    let cells = run.join("cells");
    let unreadable = |source| Error::Read {
        file: cells.clone(),
        source,
    };
    let mut folders = Vec::new();
    for entry in fs::read_dir(&cells).map_err(unreadable)? {
        let folder = entry.map_err(unreadable)?.path();
        if folder.join(ROWS_FILE).is_file() {
            folders.push(folder);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Combines the cells in `folders` into `results.parquet`, `results.csv`, `timings.parquet` and,
/// if asked for, `per_example.parquet` in the run's folder. Returns the rows.
///
/// Rows are ordered by data set, network, defense, recipe, seed, checkpoint, kind, source, its
/// checkpoint, attack, radius and cell; times by cell, kind and start; outcomes by the name of the
/// cell's folder, then by example. So the bytes depend on what the cells found, not on the order in
/// which they finished. A folder without one of the files adds nothing to that table.
pub fn combine(run: &Path, folders: &[PathBuf], per_example: PerExample) -> Result<Vec<Row>> {
    let mut folders: Vec<&PathBuf> = folders.iter().collect();
    folders.sort_by_key(|folder| (folder.file_name(), *folder));
    let mut rows = Vec::new();
    let mut timings = Vec::new();
    for folder in &folders {
        let (its_rows, its_timings) = (folder.join(ROWS_FILE), folder.join(TIMINGS_FILE));
        if its_rows.is_file() {
            rows.extend(read_rows(&its_rows)?);
        }
        if its_timings.is_file() {
            timings.extend(read_timings(&its_timings)?);
        }
    }
    rows.sort_by(order);
    timings.sort_by(|a: &Timing, b: &Timing| (&a.cell, a.kind, a.started).cmp(&(&b.cell, b.kind, b.started)));
    write_parquet(&run.join("results.parquet"), Force::Now, &rows)?;
    write_csv(&run.join("results.csv"), &rows)?;
    write_parquet(&run.join("timings.parquet"), Force::Now, &timings)?;
    if per_example == PerExample::Combine {
        combine_outcomes(&run.join("per_example.parquet"), &folders)?;
    }
    spend(|| force_folder(run)).map_err(|source| Error::Write {
        file: run.to_path_buf(),
        source,
    })?;
    Ok(rows)
}

/// The rows in a file that [`write_cell`] or [`combine`] wrote.
pub fn read_rows(file: &Path) -> Result<Vec<Row>> {
    parse_rows(bytes_of(file)?).map_err(|reason| damaged(file, reason))
}

/// The times in a file that [`write_cell`] or [`combine`] wrote.
pub fn read_timings(file: &Path) -> Result<Vec<Timing>> {
    parse(bytes_of(file)?).map_err(|reason| damaged(file, reason))
}

/// The outcomes in a file that [`write_cell`] or [`combine`] wrote.
pub fn read_outcomes(file: &Path) -> Result<Vec<Outcome>> {
    Outcome::from_frame(&read_frame(file)?).map_err(|error| damaged(file, error))
}

/// Writes the flags of a run as CSV.
pub fn write_flags(file: &Path, flags: &[Raised]) -> Result<()> {
    write_csv(file, flags)
}

/// Writes comparisons of defenses as CSV.
pub fn write_comparisons(file: &Path, comparisons: &[Comparison]) -> Result<()> {
    write_csv(file, comparisons)
}

/// The rows of any of a run's tables as text by column, null left out: for readers of files that another version
/// wrote, with columns that this one does not know or lacks.
pub fn read_texts(file: &Path) -> Result<Vec<BTreeMap<String, String>>> {
    texts(&read_frame(file)?).map_err(|error| damaged(file, error))
}

/// The same out of the bytes of a file, or what is wrong with them.
pub fn parse_texts(bytes: Vec<u8>) -> Result<Vec<BTreeMap<String, String>>, String> {
    texts(&parse_frame(bytes)?).map_err(|error| error.to_string())
}

fn texts(frame: &DataFrame) -> PolarsResult<Vec<BTreeMap<String, String>>> {
    let mut rows = vec![BTreeMap::new(); frame.height()];
    for column in frame.columns() {
        for (i, row) in rows.iter_mut().enumerate() {
            let text = match column.get(i)? {
                AnyValue::Null => continue,
                AnyValue::String(text) => text.to_string(),
                AnyValue::StringOwned(text) => text.to_string(),
                other => other.to_string(),
            };
            row.insert(column.name().to_string(), text);
        }
    }
    Ok(rows)
}

/// The order of rows in every table, total but for rows that agree in all of these.
fn order(a: &Row, b: &Row) -> Ordering {
    (&a.dataset, &a.network, &a.defense, &a.recipe)
        .cmp(&(&b.dataset, &b.network, &b.defense, &b.recipe))
        .then_with(|| (a.seed, a.checkpoint, a.kind, &a.source).cmp(&(b.seed, b.checkpoint, b.kind, &b.source)))
        .then_with(|| (a.source_checkpoint, &a.attack).cmp(&(b.source_checkpoint, &b.attack)))
        .then_with(|| {
            a.epsilon_value
                .unwrap_or(0.0)
                .total_cmp(&b.epsilon_value.unwrap_or(0.0))
        })
        .then_with(|| a.cell.cmp(&b.cell))
}

/// One cell at a time, column by column, so that memory holds one cell's outcomes.
fn combine_outcomes(file: &Path, folders: &[&PathBuf]) -> Result<()> {
    let empty = Outcome::to_frame(&[]).map_err(|error| unwritable(file, error))?;
    let names: Vec<&str> = Outcome::columns().iter().map(|column| column.name).collect();
    write_sealed(file, Force::Now, |writer| {
        let mut parquet = parquet_writer(writer).batched(empty.schema())?;
        for folder in folders {
            let part = folder.join(OUTCOMES_FILE);
            if !part.is_file() {
                continue;
            }
            let frame = read_frame(&part)?
                .select(names.iter().copied())
                .map_err(|error| damaged(&part, error))?;
            if frame.schema() != empty.schema() {
                return Err(damaged(&part, "its columns have other types").into());
            }
            parquet.write_batch(&frame)?;
        }
        parquet.finish()?;
        Ok(())
    })
}

/// A cell's table as JSON.
#[derive(Serialize, Deserialize)]
struct Rows<T> {
    rows: T,
}

/// A number that is infinite or none becomes null.
fn write_json<T: Serialize>(file: &Path, rows: &[T]) -> Result<()> {
    write_file(file, Force::Later, |mut temporary| {
        let text = sealed::to_text(&Rows { rows }).map_err(|error| Failure::Io(error.into()))?;
        Ok(temporary.write_all(text.as_bytes())?)
    })
}

fn write_parquet<T: Table>(file: &Path, force: Force, rows: &[T]) -> Result<()> {
    let mut frame = T::to_frame(rows).map_err(|error| unwritable(file, error))?;
    write_sealed(file, force, |writer| {
        parquet_writer(writer).finish(&mut frame)?;
        Ok(())
    })
}

/// Without statistics, which would cost more than reading these small tables, and without threads,
/// of which others have better use.
fn parquet_writer<W: Write>(writer: W) -> ParquetWriter<W> {
    ParquetWriter::new(writer)
        .with_compression(ParquetCompression::Zstd(None))
        .with_statistics(StatisticsOptions::empty())
        .set_parallel(false)
}

fn write_sealed(
    file: &Path,
    force: Force,
    write: impl FnOnce(&mut seal::Writer<&File>) -> Result<(), Failure>,
) -> Result<()> {
    write_file(file, force, |temporary| {
        let mut writer = seal::Writer::new(temporary);
        write(&mut writer)?;
        writer.seal().map_err(Failure::Io)
    })
}

/// Null is an empty field; text with commas, quotes or line breaks is quoted.
fn write_csv<T: Table>(file: &Path, rows: &[T]) -> Result<()> {
    let mut frame = T::to_frame(rows).map_err(|error| unwritable(file, error))?;
    write_file(file, Force::Now, |temporary| {
        let mut writer = BufWriter::new(temporary);
        CsvWriter::new(&mut writer).finish(&mut frame)?;
        writer.flush().map_err(Failure::Io)
    })
}

fn write_file(file: &Path, force: Force, write: impl FnOnce(&File) -> Result<(), Failure>) -> Result<()> {
    write_atomically(file, force, write).map_err(|failure| match failure {
        Failure::Io(source) => Error::Write {
            file: file.to_path_buf(),
            source,
        },
        Failure::Polars(error) => unwritable(file, error),
        Failure::Other(error) => error,
    })
}

/// Why the contents of a file could not be written.
enum Failure {
    Io(io::Error),
    Polars(PolarsError),
    Other(Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<PolarsError> for Failure {
    fn from(error: PolarsError) -> Self {
        Self::Polars(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Read whole, not mapped: a file that another process replaces or cuts must not bring this one down.
fn bytes_of(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).map_err(|source| Error::Read {
        file: file.to_path_buf(),
        source,
    })
}

fn read_frame(file: &Path) -> Result<DataFrame> {
    parse_frame(bytes_of(file)?).map_err(|reason| damaged(file, reason))
}

/// The table in the bytes of a file, a cell's or a run's, or what is wrong with them.
fn parse<T: Table + DeserializeOwned>(bytes: Vec<u8>) -> Result<Vec<T>, String> {
    if !bytes.starts_with(b"{") {
        return T::from_frame(&parse_frame(bytes)?).map_err(|error| error.to_string());
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
    let rows: Rows<Vec<T>> = sealed::from_text(text)
        .ok_or("it is cut short, damaged or from another program")?
        .map_err(|error| error.to_string())?;
    Ok(rows.rows)
}

/// The table in the bytes of a Parquet file, or what is wrong with them.
///
/// The seal comes first, so the Parquet reader sees only what this program wrote, unless somebody has computed
/// the seal anew. That reader then panics at some lengths; a panic must not bring a whole run down.
fn parse_frame(bytes: Vec<u8>) -> Result<DataFrame, String> {
    if !seal::holds(&bytes) {
        return Err("it is cut short, damaged or from another program".into());
    }
    bounds::check(&bytes)?;
    let length = bytes.len();
    let parse = || {
        ParquetReader::new(Cursor::new(bytes))
            .read_parallel(ParallelStrategy::None)
            .finish()
    };
    let frame = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(parse)) {
        Ok(frame) => frame.map_err(|error| error.to_string())?,
        Err(_) => return Err("its Parquet is damaged, although its checksum fits".into()),
    };
    bounds::check_texts(&frame, length)?;
    Ok(frame)
}

/// The rows in the bytes of a file that [`write_cell`] or [`combine`] wrote, or what is wrong with them.
pub fn parse_rows(bytes: Vec<u8>) -> Result<Vec<Row>, String> {
    parse(bytes)
}

/// Computes the checksum of a Parquet file's bytes anew, as a forger would: for tests of what lies behind it.
/// Leaves alone what has no place for one.
#[doc(hidden)]
pub fn reseal(bytes: &mut [u8]) {
    seal::renew(bytes);
}

fn damaged(file: &Path, reason: impl ToString) -> Error {
    Error::Damaged {
        file: file.to_path_buf(),
        reason: reason.to_string(),
    }
}

fn unwritable(file: &Path, error: PolarsError) -> Error {
    Error::Write {
        file: file.to_path_buf(),
        source: match error {
            PolarsError::IO { error, .. } => io::Error::new(error.kind(), error.to_string()),
            other => io::Error::other(other.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::{outcome, row, timing};
    use crate::{Kind, Status};

    fn fill(run: &Path, names: &[&str]) {
        for name in names {
            let folder = run.join("cells").join(name);
            fs::create_dir_all(&folder).unwrap();
            let mut done = row(name);
            done.attack = format!("attack of {name}");
            let rows = match *name {
                "c" => vec![done.with_failure("out of memory, \"again\"\nsorry")],
                _ => vec![done.with_count(200, 111)],
            };
            let outcomes: Vec<Outcome> = (0..200).rev().map(|example| outcome(name, example)).collect();
            write_cell(&folder, &rows, &outcomes, &[timing(name)]).unwrap();
        }
    }

    const ROOT: [&str; 4] = [
        "results.parquet",
        "results.csv",
        "timings.parquet",
        "per_example.parquet",
    ];

    #[test]
    fn any_table_reads_as_text() {
        let folder = tempfile::tempdir().unwrap();
        let rows = [row("ab").with_count(10, 7), row("cd").with_failure("it, \"diverged\"")];
        write_cell(folder.path(), &rows, &[], &[timing("ab")]).unwrap();
        combine(folder.path(), &[folder.path().to_path_buf()], PerExample::Skip).unwrap();
        let texts = read_texts(&folder.path().join("results.parquet")).unwrap();
        assert_eq!((texts[0]["n"].as_str(), texts[0]["verified"].as_str()), ("10", "true"));
        assert_eq!(
            (texts[1].get("n"), texts[1]["error"].as_str()),
            (None, "it, \"diverged\"")
        );
        assert_eq!(texts[0].get("source"), None);
        let times = read_texts(&folder.path().join("timings.parquet")).unwrap();
        assert_eq!(
            (times[0]["host"].as_str(), times[0]["threads"].as_str()),
            ("node-1", "2")
        );
    }

    #[test]
    fn what_is_stored_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let rows = vec![
            row("ab").with_count(10, 7),
            Row {
                kind: Kind::Transfer,
                ..row("ab").with_failure("diverged")
            },
        ];
        let outcomes = vec![outcome("ab", 0), outcome("ab", 3)];
        write_cell(folder.path(), &rows, &outcomes, &[timing("ab")]).unwrap();
        assert_eq!(read_rows(&folder.path().join(ROWS_FILE)).unwrap(), rows);
        assert_eq!(read_outcomes(&folder.path().join(OUTCOMES_FILE)).unwrap(), outcomes);
        assert_eq!(read_timings(&folder.path().join(TIMINGS_FILE)).unwrap(), [timing("ab")]);
        // Nothing temporary is left.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        // Again, over the old files, with nothing in them.
        write_cell(folder.path(), &[], &[], &[]).unwrap();
        assert_eq!(read_rows(&folder.path().join(ROWS_FILE)).unwrap(), []);
    }

    #[test]
    fn the_order_of_cells_does_not_show() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fill(here.path(), &["a", "b", "c"]);
        fill(there.path(), &["c", "a", "b"]);
        let mut reversed = cell_folders(there.path()).unwrap();
        reversed.reverse();
        let rows = combine(here.path(), &cell_folders(here.path()).unwrap(), PerExample::Combine).unwrap();
        combine(there.path(), &reversed, PerExample::Combine).unwrap();
        for file in ROOT {
            let bytes = |run: &Path| fs::read(run.join(file)).unwrap();
            assert!(bytes(here.path()) == bytes(there.path()), "{file} differs");
        }
        assert_eq!(read_rows(&here.path().join("results.parquet")).unwrap(), rows);
        assert_eq!(rows.len(), 3);
        let outcomes = read_outcomes(&here.path().join("per_example.parquet")).unwrap();
        assert_eq!(outcomes.len(), 600);
        assert!(outcomes.is_sorted_by_key(|it| (it.cell.clone(), it.example)));
    }

    #[test]
    fn missing_is_empty_in_the_csv() {
        let run = tempfile::tempdir().unwrap();
        fill(run.path(), &["c"]);
        let rows = combine(run.path(), &cell_folders(run.path()).unwrap(), PerExample::Skip).unwrap();
        assert_eq!((rows[0].status, rows[0].accuracy), (Status::Failed, None));
        assert!(!run.path().join("per_example.parquet").exists());
        let text = fs::read_to_string(run.path().join("results.csv")).unwrap();
        let (header, line) = text.split_once('\n').unwrap();
        let names: Vec<&str> = Row::COLUMNS.iter().map(|column| column.name).collect();
        assert_eq!(header, names.join(","));
        assert!(line.contains(",,,,,,,,,config,0.1.0,failed,"), "{line}");
        assert!(line.ends_with("\"out of memory, \"\"again\"\"\nsorry\"\n"), "{line}");
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let rows: Vec<Row> = (0..40).map(|k| row(&format!("{k:02}")).with_count(10, 3)).collect();
        write_parquet(&folder.path().join("rows.parquet"), Force::Later, &rows).unwrap();
        let whole = fs::read(folder.path().join("rows.parquet")).unwrap();
        let file = folder.path().join("damaged.parquet");
        write_cell(folder.path(), &rows, &[], &[]).unwrap();
        let json = fs::read(folder.path().join(ROWS_FILE)).unwrap();
        assert_eq!(parse_rows(json.clone()).as_deref(), Ok(&rows[..]));
        let cuts = |whole: &[u8]| (0..whole.len()).step_by(97).chain(whole.len() - 12..whole.len());
        let cut = cuts(&whole).map(|length| &whole[..length]);
        for bytes in cut.chain(cuts(&json).map(|length| &json[..length])) {
            fs::write(&file, bytes).unwrap();
            let error = read_rows(&file).unwrap_err().to_string();
            assert!(
                error.contains("damaged.parquet") && error.contains("delete it"),
                "{error}"
            );
        }
        let mut state = 1u32;
        let mut draw = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize
        };
        for _ in 0..300 {
            let mut bytes = if draw() % 2 == 0 { whole.clone() } else { json.clone() };
            let place = draw() % bytes.len();
            bytes[place] ^= 1 + (draw() % 255) as u8;
            fs::write(&file, &bytes).unwrap();
            assert!(read_rows(&file).is_err());
        }
        for length in 0..200 {
            let mut bytes = b"PAR1".to_vec();
            bytes.extend((0..length).map(|_| draw() as u8));
            bytes.extend(b"PAR1");
            fs::write(&file, &bytes).unwrap();
            assert!(read_rows(&file).is_err());
        }
        assert!(matches!(
            read_rows(&folder.path().join("absent")),
            Err(Error::Read { .. })
        ));
    }

    #[test]
    fn a_foreign_table_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write_cell(folder.path(), &[], &[outcome("a", 1)], &[timing("a")]).unwrap();
        let refused = |name: &str| {
            let error = read_rows(&folder.path().join(name)).unwrap_err().to_string();
            error.replace(&folder.path().display().to_string(), "cell")
        };
        insta::assert_snapshot!(
            refused(OUTCOMES_FILE),
            @"`cell/outcomes.parquet` is not a table of results: it has no column `run`; delete it and run again to make it anew"
        );
        insta::assert_snapshot!(
            refused(TIMINGS_FILE),
            @"`cell/timings.json` is not a table of results: unknown variant `evaluate`, expected one of `natural`, `white-box`, `query`, `transfer` at line 5 column 24; delete it and run again to make it anew"
        );
        let mut wrong = Timing::to_frame(&[timing("a")]).unwrap();
        wrong.with_column(Column::new("kind".into(), vec![7u32])).unwrap();
        let error = Timing::from_frame(&wrong).unwrap_err().to_string();
        assert_eq!(error, "column `kind` holds u32, not text");
        wrong.with_column(Column::new("kind".into(), vec!["guess"])).unwrap();
        let error = Timing::from_frame(&wrong).unwrap_err().to_string();
        assert_eq!(
            error,
            "column `kind` holds `guess`, none of `train`, `evaluate` in row 0, which is unknown here"
        );
    }

    #[test]
    fn a_column_that_an_older_version_lacked_reads_as_null() {
        let mut frame = Timing::to_frame(&[timing("a")]).unwrap();
        frame = frame.drop("peak_memory").unwrap();
        assert_eq!(Timing::from_frame(&frame).unwrap()[0].peak_memory, None);
        frame = frame.drop("seconds").unwrap();
        assert!(Timing::from_frame(&frame).is_err());
    }
}
