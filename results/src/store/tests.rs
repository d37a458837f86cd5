use std::fs;
use std::path::Path;

use polars::prelude::Column;

use super::write::write_parquet;
use super::*;
use crate::atomic::Force;
use crate::fixtures::{outcome, row, timing};
use crate::table::Table;
use crate::{Kind, Outcome, Row, Status, Timing};

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
    // No temporary file is left.
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
    assert!(outcomes.is_sorted_by_key(|outcome| (outcome.cell.clone(), outcome.example)));
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
    assert!(line.contains(",,,,,,,,,config,{},,0.1.0,failed,"), "{line}");
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
        @"`cell/outcomes.parquet` is not a table of results: it has no column `run`; delete it and run again to recreate it"
    );
    insta::assert_snapshot!(
        refused(TIMINGS_FILE),
        @"`cell/timings.json` is not a table of results: unknown variant `evaluate`, expected one of `natural`, `white-box`, `query`, `transfer` at line 5 column 24; delete it and run again to recreate it"
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

/// Saves a run's results again as pandas does: an index, columns in another order, integers with a missing one as
/// floating point, no seal.
#[test]
fn a_table_that_another_program_saved_again_reads_as_text() {
    use polars::prelude::*;
    let folder = tempfile::tempdir().unwrap();
    let rows = [row("ab").with_count(10, 7), row("cd").with_failure("it, \"diverged\"")];
    write_cell(folder.path(), &rows, &[], &[timing("ab")]).unwrap();
    combine(folder.path(), &[folder.path().to_path_buf()], PerExample::Skip).unwrap();
    let file = folder.path().join("results.parquet");
    let texts = read_texts(&file).unwrap();
    let frame = ParquetReader::new(fs::File::open(&file).unwrap()).finish().unwrap();
    let mut columns: Vec<Column> = frame.columns().iter().rev().cloned().collect();
    for column in &mut columns {
        if column.name() == "n" || column.name() == "n_correct" {
            *column = column.cast(&DataType::Float64).unwrap();
        }
    }
    columns.push(Column::new("__index_level_0__".into(), [0i64, 1]));
    let mut saved = DataFrame::new(frame.height(), columns).unwrap();
    for compression in [
        ParquetCompression::Snappy,
        ParquetCompression::Zstd(None),
        ParquetCompression::Uncompressed,
    ] {
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes)
            .with_compression(compression)
            .finish(&mut saved)
            .unwrap();
        let found = parse_texts(bytes.clone()).unwrap();
        for (found, row) in found.iter().zip(&texts) {
            for (column, text) in row {
                let float = matches!(&column[..], "n" | "n_correct");
                let expected = if float { format!("{text}.0") } else { text.clone() };
                assert_eq!(found[column], expected, "{column}");
            }
        }
        // As a run's own table it is not trusted.
        fs::write(&file, &bytes).unwrap();
        let message = read_rows(&file).unwrap_err().to_string();
        assert!(
            message.contains("it has no checksum, so another program wrote it"),
            "{message}"
        );
        let problem = |bytes: &[u8]| parse_texts(bytes.to_vec()).unwrap_err();
        assert_eq!(problem(&bytes[..bytes.len() - 3]), "its end is missing");
        assert_eq!(problem(b"{}"), "it is not a Parquet file");
    }
}

#[test]
fn a_seal_that_does_not_hold_is_refused_as_text_too() {
    let folder = tempfile::tempdir().unwrap();
    write_cell(folder.path(), &[row("ab").with_count(10, 7)], &[], &[]).unwrap();
    combine(folder.path(), &[folder.path().to_path_buf()], PerExample::Skip).unwrap();
    let bytes = fs::read(folder.path().join("results.parquet")).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert!(parse_texts(flipped).is_err(), "byte {at} of {}", bytes.len());
    }
}
