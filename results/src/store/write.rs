//! Tables as sealed Parquet, sealed JSON or CSV.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use polars::prelude::*;
use serde::Serialize;

use super::error::{Error, Result, unwritable};
use super::rows::Rows;
use crate::atomic::{Force, write_atomically};
use crate::flags::RaisedFlag;
use crate::seal;
use crate::significance::Comparison;
use crate::table::Table;

/// Writes the flags of a run as CSV.
pub fn write_flags(file: &Path, flags: &[RaisedFlag]) -> Result<()> {
    write_csv(file, flags)
}

/// Writes comparisons of defenses as CSV.
pub fn write_comparisons(file: &Path, comparisons: &[Comparison]) -> Result<()> {
    write_csv(file, comparisons)
}

/// Infinite numbers and NaN become null.
pub(super) fn write_json<T: Serialize>(file: &Path, rows: &[T]) -> Result<()> {
    write_file(file, Force::Later, |mut temporary| {
        let text = seal::json::to_text(&Rows { rows }).map_err(|error| Failure::Io(error.into()))?;
        Ok(temporary.write_all(text.as_bytes())?)
    })
}

pub(super) fn write_parquet<T: Table>(file: &Path, force: Force, rows: &[T]) -> Result<()> {
    let mut frame = T::to_frame(rows).map_err(|error| unwritable(file, error))?;
    write_sealed(file, force, |writer| {
        parquet_writer(writer).finish(&mut frame)?;
        Ok(())
    })
}

/// Without statistics, which would cost more than reading these small tables, and without threads,
/// which other work needs more.
pub(super) fn parquet_writer<W: Write>(writer: W) -> ParquetWriter<W> {
    ParquetWriter::new(writer)
        .with_compression(ParquetCompression::Zstd(None))
        .with_statistics(StatisticsOptions::empty())
        .set_parallel(false)
}

pub(super) fn write_sealed(
    file: &Path,
    force: Force,
    write: impl FnOnce(&mut seal::parquet::Writer<&File>) -> Result<(), Failure>,
) -> Result<()> {
    write_file(file, force, |temporary| {
        let mut writer = seal::parquet::Writer::new(temporary);
        write(&mut writer)?;
        writer.seal().map_err(Failure::Io)
    })
}

/// Null is an empty field; text with commas, quotes or line breaks is quoted.
pub(super) fn write_csv<T: Table>(file: &Path, rows: &[T]) -> Result<()> {
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
pub(super) enum Failure {
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
