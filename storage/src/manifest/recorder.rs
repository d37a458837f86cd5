//! Records what an invocation of the program does to a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use results::atomic;

use super::document::{INVOCATIONS, Manifest, read_invocations};
use super::facts::{DatasetFacts, End, Invocation, Machine, MatrixFacts, PlanFacts, Program, Settings};
use super::index::index;
use crate::{files, host};

/// What an invocation computes, and with what.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The matrix.
    pub matrix: MatrixFacts,
    /// The plan that it resolves to.
    pub plan: PlanFacts,
    /// Data sets by how the matrix cuts them.
    pub datasets: BTreeMap<String, DatasetFacts>,
    /// The program.
    pub program: Program,
    /// The machine.
    pub machine: Machine,
    /// How the program is run.
    pub settings: Settings,
}

/// How an invocation ends.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// The exit code.
    pub exit: u8,
    /// A signal or an error ended it early.
    pub cut_short: bool,
    /// Cells that ended, with a result or without.
    pub cells_ended: usize,
}

/// A running invocation, recorded in the run's folder.
#[derive(Debug)]
pub struct Recorder {
    root: PathBuf,
    invocation: Invocation,
    matrix: MatrixFacts,
    plan: PlanFacts,
    datasets: BTreeMap<String, DatasetFacts>,
    clock: Instant,
}

impl Recorder {
    /// Records that an invocation begins.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub fn begin(root: &Path, origin: Origin) -> Result<Self> {
        let started = host::now();
        let plain: String = host::name()
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .collect();
        let recorder = Self {
            root: root.to_path_buf(),
            invocation: Invocation {
                id: format!("{started}-{}-{plain}", std::process::id()),
                arguments: std::env::args().collect(),
                started,
                end: None,
                plan: origin.plan.blake3.clone(),
                matrix: origin.matrix.blake3.clone(),
                program: origin.program,
                machine: origin.machine,
                settings: origin.settings,
            },
            matrix: origin.matrix,
            plan: origin.plan,
            datasets: origin.datasets,
            clock: Instant::now(),
        };
        files::make_folder(&root.join(INVOCATIONS))?;
        files::write_sealed(&recorder.file(), &recorder.invocation)?;
        Ok(recorder)
    }

    /// The invocation's name.
    pub fn id(&self) -> &str {
        &self.invocation.id
    }

    /// Records how the invocation ends. One that came to its end and did nothing leaves no trace.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub fn note_end(&mut self, ending: Ending) -> Result<()> {
        if ending.cut_short || ending.cells_ended > 0 {
            self.invocation.end = Some(End {
                exit: ending.exit,
                cells_ended: ending.cells_ended,
                seconds: self.clock.elapsed().as_secs_f64(),
                bookkeeping_seconds: atomic::spent().as_secs_f64(),
            });
            return files::write_sealed(&self.file(), &self.invocation);
        }
        std::fs::remove_file(self.file()).with_context(|| format!("cannot remove {}", self.file().display()))
    }

    /// Records how the invocation ends, and writes the manifest. Returns its digest.
    ///
    /// # Errors
    /// If a file of the run cannot be read, or the manifest cannot be written.
    pub fn end(mut self, ending: Ending) -> Result<String> {
        self.note_end(ending)?;
        let manifest = Manifest {
            format: Manifest::FORMAT,
            run: self
                .root
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
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
