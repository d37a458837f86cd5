//! Stored results, of this version or another, out of a run's folder or a file.
//!
//! A baseline may be years old, so only what every version has is needed, by name; other columns may come
//! and go. The same columns in the same order are what `--update` writes, one line per outcome, so that a
//! reviewer sees in a diff what moved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::csv::{self, Record};
use crate::exit::Stop;

/// What a cell is called, seed apart. Keys change with every version; names stay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) dataset: String,
    pub(crate) network: String,
    pub(crate) defense: String,
    pub(crate) recipe: String,
    pub(crate) checkpoint: String,
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) attack: String,
    pub(crate) epsilon: String,
}

/// One outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Count {
    /// How many of `n` images are still classified correctly.
    Done {
        n: u64,
        correct: u64,
    },
    Failed(String),
}

/// Everything that one side of a comparison says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    pub(crate) cells: BTreeMap<Name, BTreeMap<u64, Count>>,
    /// What a number depends on besides names and seeds: `program` → `0.1.0`, `attack PGD-20` → `1`.
    pub(crate) versions: BTreeMap<String, BTreeSet<String>>,
}

/// Larger files are rejected: even a hundred thousand cells take less.
const LARGEST: u64 = 256 << 20;

/// The results at a path, and the rows as they will be written to a baseline.
pub(crate) fn read(path: &Path) -> Result<(Stored, Vec<Record>)> {
    let file = find(path)?;
    let named = |problem: String| Stop::usage(format!("{}: {problem}", file.display()));
    let size = std::fs::metadata(&file)
        .map_err(|error| named(error.to_string()))?
        .len();
    if size > LARGEST {
        return Err(named(format!("{size} bytes are too large for stored results")));
    }
    let mut records = match file.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => results::read_texts(&file).map_err(|error| match error {
            results::Error::Damaged { reason, .. } => named(format!(
                "this is not a table of results: {reason}; name a run's folder, its results.parquet or results.csv, or \
                 either saved again"
            )),
            unreadable => Stop::usage(unreadable.to_string()),
        })?,
        _ => {
            let text = std::fs::read_to_string(&file).map_err(|error| named(error.to_string()))?;
            csv::parse(&text).map_err(named)?
        }
    };
    normalise(&mut records);
    let stored = collect(&records).map_err(|error| named(format!("{error:#}")))?;
    Ok((stored, records))
}

/// Columns of integers.
const INTEGERS: [&str; 5] = ["seed", "n", "n_correct", "defense_version", "attack_version"];

/// Writes integers without a fraction: `60.0` is 60. Programs that know no missing integers, such as pandas, write
/// columns that have some as floating point.
pub(super) fn normalise(records: &mut [Record]) {
    for record in records {
        for column in INTEGERS {
            if let Some(text) = record.get_mut(column)
                && let Some((integer, zeros)) = text.split_once('.')
                && !integer.is_empty()
                && !zeros.is_empty()
                && zeros.bytes().all(|digit| digit == b'0')
            {
                *text = integer.to_string();
            }
        }
    }
}

/// A run's folder means the results in it.
fn find(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    for name in ["results.parquet", "results.csv"] {
        let file = path.join(name);
        if file.is_file() {
            return Ok(file);
        }
    }
    Err(Stop::usage(format!(
        "{} holds no results.parquet; name the folder of a finished run, such as runs/digits, or a stored results file",
        path.display()
    )))
}

/// Rows by name and seed.
pub(crate) fn collect(records: &[Record]) -> Result<Stored> {
    let mut stored = Stored::default();
    ensure!(!records.is_empty(), "it holds no row");
    for (i, record) in records.iter().enumerate() {
        row(record, &mut stored).with_context(|| format!("row {}", i + 1))?;
    }
    Ok(stored)
}

fn row(record: &Record, stored: &mut Stored) -> Result<()> {
    let optional = |name: &str| record.get(name).cloned().unwrap_or_default();
    let text = |name: &str| -> Result<String> { Ok(record.get(name).with_context(|| missing(name))?.clone()) };
    let number = |name: &str| -> Result<u64> {
        let text = text(name)?;
        text.parse()
            .with_context(|| format!("`{name}` is `{}`, not a number", text.escape_debug()))
    };
    let name = Name {
        dataset: text("dataset")?,
        network: text("network")?,
        defense: text("defense")?,
        recipe: optional("recipe"),
        checkpoint: text("checkpoint")?,
        kind: text("kind")?,
        source: optional("source"),
        attack: text("attack")?,
        epsilon: optional("epsilon"),
    };
    let count = match optional("status").as_str() {
        "failed" => Count::Failed(optional("error")),
        "done" | "" => {
            let (n, correct) = (number("n")?, number("n_correct")?);
            ensure!(
                n > 0 && correct <= n,
                "{correct} of {n} images cannot be classified correctly"
            );
            Count::Done { n, correct }
        }
        other => anyhow::bail!("`status` is `{}`, neither `done` nor `failed`", other.escape_debug()),
    };
    let mut version = |what: String, column: &str| {
        if let Some(value) = record.get(column) {
            stored.versions.entry(what).or_default().insert(value.clone());
        }
    };
    version("program".into(), "code_version");
    version(format!("defense {}", name.defense), "defense_version");
    version(format!("attack {}", name.attack), "attack_version");
    version(format!("data of {}", name.dataset), "dataset_digest");
    let seed = number("seed")?;
    let earlier = stored
        .cells
        .entry(name.clone())
        .or_default()
        .insert(seed, count.clone());
    ensure!(
        earlier.as_ref().is_none_or(|earlier| *earlier == count),
        "seed {seed} of {name} is there twice, with different outcomes; give each a `label` of its own"
    );
    Ok(())
}

fn missing(name: &str) -> String {
    format!("there is no `{name}`, so these are not stored results")
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}, {}", self.dataset, self.network, self.defense)?;
        write!(f, ", {} checkpoint, {}", self.checkpoint, self.attack)?;
        match &self.source[..] {
            "" => Ok(()),
            source => write!(f, " from {source}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "dataset,network,defense,checkpoint,kind,attack,seed,n,n_correct,status,error,from_the_future\n";

    fn stored(rows: &str) -> Result<Stored, String> {
        collect(&csv::parse(&format!("{HEAD}{rows}")).unwrap()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn other_versions_may_have_other_columns() {
        let it = stored("digits,tiny-cnn,MART,last,white-box,PGD,3,500,250,done,,x\n").unwrap();
        let (name, seeds) = it.cells.iter().next().unwrap();
        assert_eq!((name.defense.as_str(), name.recipe.as_str()), ("MART", ""));
        assert_eq!(seeds[&3], Count::Done { n: 500, correct: 250 });
        let it = stored("digits,tiny-cnn,MART,last,white-box,PGD,3,,,failed,diverged,\n").unwrap();
        assert_eq!(it.cells.values().next().unwrap()[&3], Count::Failed("diverged".into()));
    }

    /// As pandas writes a column of integers in which one is missing.
    #[test]
    fn integers_may_be_written_as_floating_point() {
        let rows = "digits,tiny-cnn,MART,last,white-box,PGD,3.0,500.0,250.0,done,,x\n";
        let mut records = csv::parse(&format!("{HEAD}{rows}")).unwrap();
        normalise(&mut records);
        let found = collect(&records).unwrap();
        assert_eq!(
            found.cells.values().next().unwrap()[&3],
            Count::Done { n: 500, correct: 250 }
        );
        for wrong in ["3.5", "3.", ".0", "3.0e1"] {
            let mut records = csv::parse(&format!("{HEAD}{}", rows.replace("3.0", wrong))).unwrap();
            normalise(&mut records);
            assert!(collect(&records).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nonsense_is_no_baseline() {
        for (rows, part) in [
            ("", "it holds no row"),
            (
                "digits,tiny-cnn,,last,white-box,PGD,3,500,250,done,,\n",
                "row 1: there is no `defense`",
            ),
            ("digits,tiny-cnn,M,last,white-box,PGD,3,500,501,done,,\n", "501 of 500"),
            ("digits,tiny-cnn,M,last,white-box,PGD,3,0,0,done,,\n", "0 of 0"),
            (
                "digits,tiny-cnn,M,last,white-box,PGD,-3,500,1,done,,\n",
                "`seed` is `-3`",
            ),
            (
                "digits,tiny-cnn,M,last,white-box,PGD,3,500,1,perhaps,,\n",
                "`status` is `perhaps`",
            ),
            (
                "d,t,M,last,white-box,PGD,3,500,1,done,,\nd,t,M,last,white-box,PGD,3,500,2,done,,\n",
                "seed 3 of d, t, M, last checkpoint, PGD is there twice",
            ),
        ] {
            let error = stored(rows).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
