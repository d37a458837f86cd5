//! The manifest itself, and the invocations that it lists.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::facts::{DatasetFacts, Invocation, MatrixFacts, PlanFacts};
use super::index::{FILE, index, is_inside, walk};
use crate::cell_folder::FileMark;
use crate::files;

/// Raised whenever the format of manifests changes.
const FORMAT: u32 = 1;
/// The matrix, in a run's folder.
pub const MATRIX: &str = "matrix.yaml";
/// Every cell of the plan with its resolved configuration, in a run's folder.
pub const PLAN: &str = "plan.json";
/// The folder of invocations, in a run's.
pub const INVOCATIONS: &str = "invocations";

/// What made a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub(super) format: u32,
    /// The matrix's name.
    pub run: String,
    /// The matrix of the last invocation.
    pub matrix: MatrixFacts,
    /// The plan that it resolves to.
    pub plan: PlanFacts,
    /// Data sets by how the matrix cuts them.
    pub datasets: BTreeMap<String, DatasetFacts>,
    /// Every invocation that computed something or did not end, by start.
    pub invocations: Vec<Invocation>,
    /// Every file of the run except this one, by its path; no locks and logs.
    pub files: BTreeMap<String, FileMark>,
}

impl Manifest {
    /// The format that this program writes.
    pub(super) const FORMAT: u32 = FORMAT;

    /// The manifest of a run; `None` if there is none.
    ///
    /// # Errors
    /// If it is damaged, of another format, or names files outside of the run's folder.
    pub fn read(root: &Path) -> Result<Option<Self>> {
        let manifest: Option<Self> = files::read_sealed(&root.join(FILE))?;
        if let Some(Self { format, files, .. }) = &manifest {
            anyhow::ensure!(
                *format == FORMAT,
                "{} has format {format}, but this program reads {FORMAT}",
                root.join(FILE).display()
            );
            let outside = files.keys().find(|path| !is_inside(path));
            anyhow::ensure!(
                outside.is_none(),
                "{} names files outside of that folder",
                root.join(FILE).display()
            );
        }
        Ok(manifest)
    }

    /// Writes it and returns its digest.
    pub(super) fn write(&self, root: &Path) -> Result<String> {
        files::write_sealed(&root.join(FILE), self)?;
        Ok(FileMark::of(&root.join(FILE))?.blake3)
    }
}

/// Records files that were written again, such as those that [`is_derived`](super::is_derived) names. All others stay as
/// they were recorded.
///
/// # Errors
/// If a file cannot be read or written.
pub fn refresh(root: &Path, written: impl Fn(&str) -> bool) -> Result<()> {
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

/// Takes files out of the manifest that are to be removed.
///
/// # Errors
/// If the manifest cannot be read or written.
pub fn forget(root: &Path, removed: impl Fn(&str) -> bool) -> Result<()> {
    let Some(mut manifest) = Manifest::read(root)? else {
        return Ok(());
    };
    manifest.files.retain(|path, _| !removed(path));
    manifest.write(root)?;
    Ok(())
}

/// The invocations recorded in a run's folder, by start.
///
/// # Errors
/// If a file is damaged.
pub fn read_invocations(root: &Path) -> Result<Vec<Invocation>> {
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
