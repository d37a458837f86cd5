//! What made a run: program, machine, matrix, data, and every file with its digest.
//!
//! Each invocation that computes something leaves a file of its own in `invocations`, so that several may work at
//! once; one that was killed has no end. `manifest.json` puts them together with what they made. It is written
//! last, and sealed: a digest of all its other bytes is its last entry. All of this guards against accidents and
//! against edits by hand, not against forgery: who wants to vouch for a run publishes the manifest's digest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use plan::Plan;
use plan::matrix::Matrix;
use results::atomic;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::files;
use crate::folder::{self, FileMark};
use crate::host;
use crate::run::{AllData, data_key};

/// Raised whenever a manifest says something otherwise.
const FORMAT: u32 = 1;
/// The file, in a run's folder.
pub(crate) const FILE: &str = "manifest.json";
/// The matrix, in a run's folder.
pub(crate) const MATRIX: &str = "matrix.yaml";
/// The folder of invocations, in a run's.
pub(crate) const INVOCATIONS: &str = "invocations";

/// What made a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u32,
    /// The matrix's name.
    pub(crate) run: String,
    /// What the last invocation was asked for.
    pub(crate) matrix: MatrixFacts,
    pub(crate) plan: PlanFacts,
    /// Data sets by how the matrix cuts them.
    pub(crate) datasets: BTreeMap<String, DatasetFacts>,
    /// Every invocation that computed something or did not end, by start.
    pub(crate) invocations: Vec<Invocation>,
    /// Every file of the run but this one and those of [`WORKINGS`], by its path.
    pub(crate) files: BTreeMap<String, FileMark>,
}

/// A matrix with what the command line laid over it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MatrixFacts {
    pub(crate) text: String,
    /// Of the text.
    blake3: String,
    pub(crate) set: Vec<String>,
    pub(crate) limit: Option<usize>,
    pub(crate) seed: Option<u64>,
}

/// What a matrix resolves to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanFacts {
    /// BLAKE3 of the keys of all cells, which are hashes of their resolved configurations.
    blake3: String,
    trainings: usize,
    evaluations: usize,
    seeds: Vec<u64>,
}

/// A data set as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatasetFacts {
    /// Of the images and labels.
    pub(crate) digest: String,
    /// Whether that is the published data set's.
    pub(crate) verified: bool,
}

/// One run of the program.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invocation {
    /// Start, process and machine.
    pub(crate) id: String,
    arguments: Vec<String>,
    /// Seconds since 1970-01-01T00:00:00Z.
    started: u64,
    /// `null`: it was killed, or is still at work.
    end: Option<End>,
    /// Hash of the plan it worked on.
    plan: String,
    /// Hash of the matrix's text.
    matrix: String,
    pub(crate) program: Program,
    machine: Machine,
    settings: Settings,
}

/// How an invocation ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    exit: u8,
    /// With a result or without.
    cells_ended: usize,
    seconds: f64,
    /// What all threads together spent on writing, forcing to disk and hashing files.
    bookkeeping_seconds: f64,
}

/// What the program was built from. `null`: not known, as outside a git checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Program {
    version: String,
    pub(crate) commit: Option<String>,
    /// Whether files that are compiled differed from the commit's.
    pub(crate) dirty: Option<bool>,
    /// BLAKE3 of `Cargo.lock`.
    cargo_lock: String,
    compiler: Option<String>,
    target: Option<String>,
    profile: Option<String>,
    opt_level: Option<String>,
    flags: Option<String>,
    features: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Machine {
    host: String,
    system: String,
    kernel: Option<String>,
    processor: String,
    /// Vector instructions that the kernels use.
    instructions: String,
    cores: Option<usize>,
    memory: Option<u64>,
    /// Where tensors lie: `cpu`, or a GPU with its name.
    device: String,
    nvidia_driver: Option<String>,
}

/// What no result depends on, but for a GPU's precision, which is part of `machine.device`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) threads: usize,
    pub(crate) jobs: usize,
    pub(crate) evaluation_batch: usize,
    pub(crate) checkpoint_every: f64,
}

impl Program {
    /// This program.
    pub(crate) fn this() -> Self {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_string());
        Self {
            version: env!("CARGO_PKG_VERSION").to_string(),
            commit: known(env!("RAMPART_COMMIT")),
            dirty: known(env!("RAMPART_DIRTY")).map(|it| it == "true"),
            cargo_lock: digest(include_bytes!("../../Cargo.lock")),
            compiler: known(env!("RAMPART_RUSTC")),
            target: known(env!("RAMPART_TARGET")),
            profile: known(env!("RAMPART_PROFILE")),
            opt_level: known(env!("RAMPART_OPT_LEVEL")),
            flags: known(env!("RAMPART_RUSTFLAGS")),
            features: cfg!(feature = "cuda").then(|| "cuda".to_string()).into_iter().collect(),
        }
    }
}

impl MatrixFacts {
    /// Of a matrix over which the command line laid these.
    pub(crate) fn of(matrix: &Matrix, set: &[String], limit: Option<usize>, seed: Option<u64>) -> Self {
        let text = matrix.source.text.clone();
        Self {
            blake3: digest(text.as_bytes()),
            text,
            set: set.to_vec(),
            limit,
            seed,
        }
    }
}

impl PlanFacts {
    /// Of a plan.
    pub(crate) fn of(plan: &Plan) -> Self {
        let mut keys: Vec<&str> = plan.cells().map(|cell| plan.identity(cell).0).collect();
        keys.sort_unstable();
        let mut seeds: Vec<u64> = plan.trainings.iter().map(|it| it.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        Self {
            blake3: digest(keys.join("\n").as_bytes()),
            trainings: plan.trainings.len(),
            evaluations: plan.evaluations.len(),
            seeds,
        }
    }
}

/// An invocation at work, noted in the run's folder.
#[derive(Debug)]
pub(crate) struct Recorder {
    root: PathBuf,
    invocation: Invocation,
    matrix: MatrixFacts,
    plan: PlanFacts,
    datasets: BTreeMap<String, DatasetFacts>,
    clock: Instant,
}

impl Recorder {
    /// Notes that an invocation begins.
    pub(crate) fn begin(
        root: &Path,
        plan: &Plan,
        data: &AllData,
        matrix: MatrixFacts,
        device: &str,
        settings: Settings,
    ) -> Result<Self> {
        let started = host::now();
        let plain: String = host::name()
            .chars()
            .filter(|it| it.is_ascii_alphanumeric() || *it == '-')
            .collect();
        let facts = PlanFacts::of(plan);
        let trained = plan.trainings.iter().map(|it| &it.dataset);
        let judged = plan.evaluations.iter().map(|it| &it.dataset);
        let datasets = trained.chain(judged).map(|entry| {
            let key = data_key(entry);
            let dataset = &data[&key].dataset;
            let facts = DatasetFacts {
                digest: dataset.digest.clone(),
                verified: dataset.verified,
            };
            (key, facts)
        });
        let recorder = Self {
            root: root.to_path_buf(),
            invocation: Invocation {
                id: format!("{started}-{}-{plain}", std::process::id()),
                arguments: std::env::args().collect(),
                started,
                end: None,
                plan: facts.blake3.clone(),
                matrix: matrix.blake3.clone(),
                program: Program::this(),
                machine: Machine {
                    host: host::name(),
                    system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
                    kernel: host::kernel(),
                    processor: host::processor(),
                    instructions: kernels::instructions().to_string(),
                    cores: std::thread::available_parallelism().ok().map(usize::from),
                    memory: host::memory(),
                    device: device.to_string(),
                    nvidia_driver: host::nvidia_driver(),
                },
                settings,
            },
            matrix,
            plan: facts,
            datasets: datasets.collect(),
            clock: Instant::now(),
        };
        files::make_folder(&root.join(INVOCATIONS))?;
        files::write_sealed(&recorder.file(), &recorder.invocation)?;
        Ok(recorder)
    }

    /// How this invocation is called.
    pub(crate) fn id(&self) -> &str {
        &self.invocation.id
    }

    /// Notes how the invocation ends. What did nothing leaves no trace.
    pub(crate) fn note_end(&mut self, exit: Exit, cells_ended: usize) -> Result<()> {
        if matches!(exit, Exit::Interrupted | Exit::Unexpected) || cells_ended > 0 {
            self.invocation.end = Some(End {
                exit: exit as u8,
                cells_ended,
                seconds: self.clock.elapsed().as_secs_f64(),
                bookkeeping_seconds: atomic::spent().as_secs_f64(),
            });
            return files::write_sealed(&self.file(), &self.invocation);
        }
        std::fs::remove_file(self.file()).with_context(|| format!("cannot remove {}", self.file().display()))
    }

    /// Notes how the invocation ends, and writes the manifest. Returns its digest.
    pub(crate) fn end(mut self, exit: Exit, cells_ended: usize) -> Result<String> {
        self.note_end(exit, cells_ended)?;
        let manifest = Manifest {
            format: FORMAT,
            run: self
                .root
                .file_name()
                .map(|it| it.to_string_lossy().into_owned())
                .unwrap_or_default(),
            invocations: read_invocations(&self.root)?,
            files: index(&self.root)?,
            matrix: self.matrix,
            plan: self.plan,
            datasets: self.datasets,
        };
        manifest.write(&self.root)
    }

    fn file(&self) -> PathBuf {
        self.root.join(INVOCATIONS).join(format!("{}.json", self.invocation.id))
    }
}

impl Manifest {
    /// The manifest of a run; `None` if there is none.
    pub(crate) fn read(root: &Path) -> Result<Option<Self>> {
        let manifest: Option<Self> = files::read_sealed(&root.join(FILE))?;
        if let Some(Self { format, .. }) = &manifest {
            anyhow::ensure!(
                *format == FORMAT,
                "{} has format {format}, but this program knows {FORMAT}",
                root.join(FILE).display()
            );
        }
        Ok(manifest)
    }

    /// Writes it and returns its digest.
    fn write(&self, root: &Path) -> Result<String> {
        files::write_sealed(&root.join(FILE), self)?;
        Ok(FileMark::of(&root.join(FILE))?.blake3)
    }
}

/// Takes down what became of files that were written again, such as those that [`is_derived`] names. All others stay
/// as they were noted.
pub(crate) fn refresh(root: &Path, written: impl Fn(&str) -> bool) -> Result<()> {
    let Some(mut manifest) = Manifest::read(root)? else {
        return Ok(());
    };
    for (path, mark) in index(root)? {
        if written(&path) {
            manifest.files.insert(path, mark);
        }
    }
    manifest.write(root)?;
    Ok(())
}

/// Whether a file follows from the cells.
pub(crate) fn is_derived(path: &str) -> bool {
    let top = [
        "results.parquet",
        "results.csv",
        "timings.parquet",
        "per_example.parquet",
        "tables.json",
        "report.html",
    ];
    top.contains(&path) || path.starts_with("tables/")
}

/// The invocations noted in a run's folder, by start.
pub(crate) fn read_invocations(root: &Path) -> Result<Vec<Invocation>> {
    let mut invocations = Vec::new();
    for path in walk(&root.join(INVOCATIONS))? {
        let file = root.join(INVOCATIONS).join(&path);
        // A process that did nothing has just removed its file.
        let Some(invocation) = files::read_sealed::<Invocation>(&file)? else {
            continue;
        };
        invocations.push(invocation);
    }
    invocations.sort_by(|a, b| (a.started, &a.id).cmp(&(b.started, &b.id)));
    Ok(invocations)
}

/// Size and digest of every file of a run. What a finished cell said of its files when it wrote them is taken at its
/// word, so that nothing is read twice, and what has changed since is not taken for what was written.
fn index(root: &Path) -> Result<BTreeMap<String, FileMark>> {
    let paths = walk(root)?;
    let mut said: BTreeMap<String, FileMark> = BTreeMap::new();
    for path in &paths {
        if let Some(cell) = path.strip_suffix(folder::STATUS).filter(|it| it.starts_with("cells/"))
            && let Some(status) = folder::status(&root.join(cell))?
        {
            said.extend(
                status
                    .files
                    .into_iter()
                    .map(|(name, mark)| (format!("{cell}{name}"), mark)),
            );
        }
    }
    let mut marks = BTreeMap::new();
    for path in paths {
        if path == FILE {
            continue;
        }
        let mark = match said.remove(&path) {
            Some(mark) => mark,
            None => match FileMark::of(&root.join(&path)) {
                Ok(mark) => mark,
                // Another process has just tidied up.
                Err(_) if !root.join(&path).exists() => continue,
                Err(error) => return Err(error),
            },
        };
        marks.insert(path, mark);
    }
    // A file that a cell made and that is gone is missed as well.
    marks.extend(said);
    Ok(marks)
}

/// Folders in a run's in which processes find each other and schedulers leave their logs.
const WORKINGS: [&str; 3] = ["processes", "claims", "slurm"];

/// The paths of all files under a run's folder, with `/`, but locks, temporary files and [`WORKINGS`]: these are no
/// part of a run.
pub(crate) fn walk(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let unreadable = || format!("cannot read the folder {}", root.join(&folder).display());
        let entries = match std::fs::read_dir(root.join(&folder)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.with_context(unreadable)?,
        };
        for entry in entries {
            let entry = entry.with_context(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || (folder.is_empty() && WORKINGS.contains(&name.as_str())) {
                continue;
            }
            match entry.file_type().with_context(unreadable)?.is_dir() {
                // Somebody works in it: a cell's own name has no dot.
                true if folder == "cells/" && name.contains('.') => {}
                true => folders.push(format!("{folder}{name}/")),
                false => found.push(format!("{folder}{name}")),
            }
        }
    }
    found.sort();
    Ok(found)
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_knows_what_it_was_built_from() {
        let program = Program::this();
        assert_eq!(program.cargo_lock.len(), 64);
        assert!(program.compiler.unwrap().contains("rustc"));
        assert!(program.target.is_some() && program.opt_level.is_some());
        assert!(
            program
                .commit
                .is_none_or(|it| it.len() == 40 && it.chars().all(|c| c.is_ascii_hexdigit()))
        );
    }

    #[test]
    fn every_file_but_hidden_ones_is_in_the_index() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = root.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        for name in [
            "a",
            "tables/b",
            "cells/c/d",
            "cells/c/gone",
            "cells/new/e",
            ".lock",
            "cells/c/.tmp",
            FILE,
        ] {
            write(name, name);
        }
        folder::finish(&root.path().join("cells/c"), "key", "me", &["d", "gone"]).unwrap();
        // Changed after the cell was finished: the index keeps what was written.
        write("cells/c/d", "else");
        std::fs::remove_file(root.path().join("cells/c/gone")).unwrap();
        let index = index(root.path()).unwrap();
        let names: Vec<&str> = index.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "a",
                "cells/c/d",
                "cells/c/gone",
                "cells/c/status.json",
                "cells/new/e",
                "tables/b"
            ]
        );
        assert_eq!(index["cells/c/d"].blake3, digest(b"cells/c/d"));
        assert_eq!(index["tables/b"].bytes, 8);
    }
}
