//! A run as the rules see it: its folder, its manifest and its plan.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plan::Cell;
use plan::{Digests, Evaluation, Methods, Plan};
use results::{Outcome, Row};
use storage::cell_folder;
use storage::manifest::{self, Invocation, Manifest};

use crate::compute::data::data_key;
use crate::schedule::MatrixRequest;

/// A run with its manifest.
pub(super) struct AuditedRun {
    pub(super) root: PathBuf,
    pub(super) manifest: Manifest,
    /// `Err`: why the matrix does not resolve.
    pub(super) plan: Result<Plan, String>,
    /// Invocations that have not recorded an end, and are not in the manifest: they were killed, or are running.
    pub(super) open: BTreeSet<String>,
}

/// What a rule finds.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) breaches: Vec<String>,
    /// What the run lacks without being damaged: the same command continues it.
    pub(super) unfinished: Vec<String>,
    /// What a reader should know although no rule is broken.
    pub(super) notes: Vec<String>,
}

impl Findings {
    pub(super) fn breach(&mut self, text: impl Into<String>) {
        self.breaches.push(text.into());
    }

    pub(super) fn unfinished(&mut self, text: impl Into<String>) {
        self.unfinished.push(text.into());
    }

    /// Something that is out of date. While an invocation has no end, files that it writes last still are those of an
    /// earlier one.
    pub(super) fn outdated(&mut self, run: &AuditedRun, text: impl Into<String>) {
        if run.open.is_empty() {
            self.breach(text);
        } else {
            self.unfinished(text);
        }
    }
}

impl AuditedRun {
    pub(super) fn new(root: &Path, manifest: Manifest, methods: &Methods) -> Self {
        Self {
            plan: resolve(root, &manifest, methods).map_err(|error| format!("{error:#}")),
            open: open(root, &manifest.invocations),
            root: root.to_path_buf(),
            manifest,
        }
    }

    pub(super) fn plan(&self) -> Result<&Plan> {
        let plan = self.plan.as_ref();
        plan.map_err(|_| anyhow::anyhow!("cannot be checked, because the plan is unknown"))
    }

    /// The evaluations whose status says finished, with their folders, and rows and outcomes of each, or why they cannot
    /// be read.
    pub(super) fn evaluations(&self) -> Result<impl Iterator<Item = (&Evaluation, PathBuf, Found)>> {
        let plan = self.plan()?;
        let done = plan.evaluations.iter().enumerate().filter_map(move |(i, evaluation)| {
            let folder = plan.folder(&self.root, Cell::Evaluation(i));
            let done =
                cell_folder::status(&folder).is_ok_and(|status| status.is_some_and(|status| status.failed.is_none()));
            done.then_some((evaluation, folder))
        });
        Ok(done.map(|(evaluation, folder)| {
            let found = read_cell(&folder);
            (evaluation, folder, found)
        }))
    }

    /// A path from the run's folder.
    pub(super) fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

/// The invocations in a run's folder that have no end and are not among the known ones. A damaged record is none of them.
pub(super) fn open(root: &Path, known: &[Invocation]) -> BTreeSet<String> {
    let invocations = manifest::read_invocations(root).unwrap_or_default();
    let open = invocations
        .into_iter()
        .filter(|invocation| invocation.end.is_none() && known.iter().all(|known| known.id != invocation.id));
    open.map(|invocation| invocation.id).collect()
}

/// The request that an invocation on record made.
pub(super) fn request(root: &Path, manifest: &Manifest) -> MatrixRequest {
    let recorded = &manifest.matrix;
    MatrixRequest {
        file: root.join(manifest::MATRIX),
        set: recorded.set.clone(),
        limit: recorded.limit,
        seed: recorded.seed,
    }
}

/// The plan of the stored matrix, with the data's digests taken from the manifest.
fn resolve(root: &Path, manifest: &Manifest, methods: &Methods) -> Result<Plan> {
    let request = request(root, manifest);
    let matrix = request.read()?;
    let mut digests = Digests::new();
    for entry in plan::resolve(&matrix, methods, request.seed, None)?.datasets() {
        let facts = manifest.datasets.get(&data_key(entry));
        let facts = facts.with_context(|| format!("the manifest has no data set {}", entry.name))?;
        digests.insert(entry.clone(), facts.digest.clone());
    }
    Ok(plan::resolve(&matrix, methods, request.seed, Some(&digests))?)
}

/// The row and the outcomes of an evaluation, or why they cannot be read.
pub(super) type Found = Result<(Row, Vec<Outcome>)>;

fn read_cell(folder: &Path) -> Found {
    let mut rows = results::read_rows(&folder.join(results::ROWS_FILE))?;
    anyhow::ensure!(rows.len() == 1, "{} rows instead of one", rows.len());
    Ok((
        rows.remove(0),
        results::read_outcomes(&folder.join(results::OUTCOMES_FILE))?,
    ))
}
