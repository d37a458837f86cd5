//! Baselines: CSV files that people keep under version control, one line per outcome.

use std::path::Path;

use anyhow::Result;
use storage::files;

use super::csv::{self, Record};
use super::read::{Count, Stored, collect, normalise};
use crate::exit::{Exit, Stop};

/// The columns of a baseline.
const COLUMNS: [&str; 18] = [
    "dataset",
    "network",
    "defense",
    "recipe",
    "checkpoint",
    "kind",
    "source",
    "attack",
    "epsilon",
    "seed",
    "n",
    "n_correct",
    "status",
    "error",
    "defense_version",
    "attack_version",
    "code_version",
    "dataset_digest",
];

/// Makes a run's results the baseline in a CSV file.
pub(crate) fn update(file: &Path, run: &Stored, records: &[Record]) -> Result<()> {
    if file.extension().is_none_or(|extension| extension != "csv") {
        return Err(Stop::usage(format!(
            "--update writes a text file that can be reviewed; give the baseline {} a name that ends in `.csv`",
            file.display()
        )));
    }
    let failed = run.cells.iter().find_map(|(name, seeds)| {
        let failed = seeds.values().any(|count| matches!(count, Count::Failed(_)));
        failed.then_some(name)
    });
    if let Some(name) = failed {
        return Err(Stop {
            exit: Exit::CellsFailed,
            message: format!(
                "{name} has failed, and a baseline without it would not notice if it were missing; run it again first"
            ),
        }
        .into());
    }
    files::write(&std::path::absolute(file)?, baseline(records).as_bytes())
}

/// A baseline as `--update` writes it, out of the text of one.
pub(crate) fn rewrite(text: &str) -> Result<String, String> {
    let mut records = csv::parse(text)?;
    normalise(&mut records);
    collect(&records).map_err(|error| format!("{error:#}"))?;
    Ok(baseline(&records))
}

/// The rows as a baseline: the columns a comparison needs, in the order of names and seeds.
fn baseline(records: &[Record]) -> String {
    let empty = String::new();
    let field = |record: &Record, name: &str| record.get(name).unwrap_or(&empty).clone();
    let mut rows: Vec<Vec<String>> = records
        .iter()
        .map(|record| COLUMNS.iter().map(|name| field(record, name)).collect())
        .collect();
    rows.sort_by(|a, b| {
        let seed = |row: &[String]| row[9].parse::<u64>().unwrap_or(0);
        (&a[..9], seed(a)).cmp(&(&b[..9], seed(b)))
    });
    rows.dedup();
    let mut text = csv::line(COLUMNS);
    for row in &rows {
        text += &csv::line(row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "dataset,network,defense,checkpoint,kind,attack,seed,n,n_correct,status,error,from_the_future\n";

    #[test]
    fn a_baseline_is_sorted_and_reads_back() {
        let text = format!(
            "{HEAD}d,t,M,last,white-box,PGD,10,500,1,done,,x\nd,t,M,last,white-box,PGD,9,500,2,done,,y\n\
             d,t,\"A, B\",last,white-box,PGD,9,,,failed,\"it, diverged\",y\n"
        );
        let records = csv::parse(&text).unwrap();
        let written = baseline(&records);
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines[0], COLUMNS.join(","));
        assert!(
            lines[1].contains("A, B") && lines[2].contains(",9,") && lines[3].contains(",10,"),
            "{written}"
        );
        let again = csv::parse(&written).unwrap();
        assert_eq!(collect(&again).unwrap().cells, collect(&records).unwrap().cells);
        assert_eq!(baseline(&again), written);
    }
}
