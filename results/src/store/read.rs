//! Tables read back: sealed Parquet or sealed JSON, never trusted before the seal holds.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use polars::prelude::*;
use serde::de::DeserializeOwned;

use super::error::{Error, Result, damaged};
use super::rows::Rows;
use crate::bounds;
use crate::row::{Outcome, Row, Timing};
use crate::seal;
use crate::table::Table;

/// The rows in a file that [`write_cell`](crate::write_cell) or [`combine`](crate::combine) wrote.
pub fn read_rows(file: &Path) -> Result<Vec<Row>> {
    parse_rows(bytes_of(file)?).map_err(|reason| damaged(file, reason))
}

/// The times in a file that [`write_cell`](crate::write_cell) or [`combine`](crate::combine) wrote.
pub fn read_timings(file: &Path) -> Result<Vec<Timing>> {
    parse(bytes_of(file)?).map_err(|reason| damaged(file, reason))
}

/// The outcomes in a file that [`write_cell`](crate::write_cell) or [`combine`](crate::combine) wrote.
pub fn read_outcomes(file: &Path) -> Result<Vec<Outcome>> {
    Outcome::from_frame(&read_frame(file)?).map_err(|error| damaged(file, error))
}

/// The rows of any of a run's tables as text by column, null left out: for readers of files that another version
/// wrote, with columns that this one does not know or lacks, or that another program saved again.
pub fn read_texts(file: &Path) -> Result<Vec<BTreeMap<String, String>>> {
    parse_texts(bytes_of(file)?).map_err(|reason| damaged(file, reason))
}

/// The same from the bytes of a file, or what is wrong with them.
///
/// A program such as pandas that saves a table again leaves the seal out. Such a file is read as well, within the same
/// bounds; a seal that does not hold is refused.
pub fn parse_texts(bytes: Vec<u8>) -> Result<Vec<BTreeMap<String, String>>, String> {
    let frame = if seal::parquet::is_sealed(&bytes) {
        parse_frame(bytes)?
    } else {
        parse_within(bounds::ANY, bytes)?
    };
    texts(&frame).map_err(|error| error.to_string())
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

/// Read into memory, not mapped: a file that another process replaces or truncates must not crash this one.
fn bytes_of(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).map_err(|source| Error::Read {
        file: file.to_path_buf(),
        source,
    })
}

pub(super) fn read_frame(file: &Path) -> Result<DataFrame> {
    parse_frame(bytes_of(file)?).map_err(|reason| damaged(file, reason))
}

/// The table in the bytes of a file, a cell's or a run's, or what is wrong with them.
fn parse<T: Table + DeserializeOwned>(bytes: Vec<u8>) -> Result<Vec<T>, String> {
    if !bytes.starts_with(b"{") {
        return T::from_frame(&parse_frame(bytes)?).map_err(|error| error.to_string());
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
    let rows: Rows<Vec<T>> = seal::json::from_text(text)
        .ok_or("it has no checksum, or not that of its bytes")?
        .map_err(|error| error.to_string())?;
    Ok(rows.rows)
}

/// The table in the bytes of a Parquet file, or what is wrong with them.
///
/// The seal comes first, so the Parquet reader sees only what this program wrote, unless a forger
/// recomputed the seal. That reader then panics at some lengths; a panic must not stop a whole run.
fn parse_frame(bytes: Vec<u8>) -> Result<DataFrame, String> {
    if !seal::parquet::holds(&bytes) {
        return Err(no_seal(&bytes));
    }
    parse_within(bounds::OURS, bytes)
}

/// Why the checksum of a Parquet file does not hold.
fn no_seal(bytes: &[u8]) -> String {
    let (start, end) = (bytes.starts_with(b"PAR1"), bytes.ends_with(b"PAR1"));
    match (start, end) {
        (true, true) if seal::parquet::is_sealed(bytes) => {
            "its bytes are not those that were written: its checksum is another".into()
        }
        (true, true) => "it has no checksum, so another program wrote it".into(),
        (true, false) => "its end is missing".into(),
        _ => "it is not a Parquet file".into(),
    }
}

fn parse_within(codecs: bounds::Codecs, bytes: Vec<u8>) -> Result<DataFrame, String> {
    if !(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1")) {
        return Err(no_seal(&bytes));
    }
    bounds::check(&bytes, codecs)?;
    let length = bytes.len();
    let parse = || {
        ParquetReader::new(Cursor::new(bytes))
            .read_parallel(ParallelStrategy::None)
            .finish()
    };
    let frame = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(parse)) {
        Ok(frame) => frame.map_err(|error| error.to_string())?,
        Err(_) => return Err("its Parquet is damaged".into()),
    };
    bounds::check_texts(&frame, length)?;
    Ok(frame)
}

/// The rows in the bytes of a file that [`write_cell`](crate::write_cell) or [`combine`](crate::combine) wrote, or what is wrong with them.
pub fn parse_rows(bytes: Vec<u8>) -> Result<Vec<Row>, String> {
    parse(bytes)
}

/// Recomputes the checksum of a Parquet file's bytes, as a forger would: for tests of what the seal protects.
/// Leaves bytes without a place for one unchanged.
#[doc(hidden)]
pub fn reseal(bytes: &mut [u8]) {
    seal::parquet::renew(bytes);
}
