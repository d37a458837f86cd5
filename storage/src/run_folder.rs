//! The folder of a run, and the processes that may share it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::UserError;
use crate::files;
use crate::leases::{Process, ProcessInfo};

/// A run's folder, in which others see this process work as long as the value lives.
#[derive(Debug)]
pub struct RunFolder {
    root: PathBuf,
    process: Process,
}

impl RunFolder {
    /// Makes `<out>/<name>` and joins the processes that work there, unless they work on another plan or one of them
    /// works alone. `say` receives messages about the processes that this process waits for or works with.
    ///
    /// # Errors
    /// [`UserError`] if the folder cannot be written to or shared.
    pub fn open(out: &Path, name: &str, info: ProcessInfo, say: &dyn Fn(&str)) -> Result<Self> {
        let root = out.join(name);
        let joined = || {
            files::make_folder(&root.join("cells"))?;
            Process::join(&root, info.clone())
        };
        let process =
            joined().map_err(|error| UserError::raise(format!("{error:#}; choose another place with --out")))?;
        // After joining, so that if two processes start at once, at least one sees the other.
        let mut waited = false;
        loop {
            let others = process.others()?;
            let Some((other, why)) = others.iter().find_map(|other| Some((other, in_the_way(&info, other)?))) else {
                for other in others.iter().filter(|other| other.plan.is_some()) {
                    say(&format!(
                        "{other} works in {} as well: cells are shared",
                        root.display()
                    ));
                }
                return Ok(Self { root, process });
            };
            // On another host it may be dead, which takes a while to see.
            if waited || other.machine == info.machine {
                return Err(UserError::raise(format!(
                    "another run ({other}) works in {} {why}; wait for it, or choose another folder with --out",
                    root.display(),
                )));
            }
            say(&format!(
                "{other} works in {} {why}: checking whether it is alive",
                root.display()
            ));
            waited = !process.finds_dead(other)?;
        }
    }

    /// This process among those that work in the folder.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// `<out>/<name>`.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Why two processes cannot work in one folder at the same time, if they cannot.
fn in_the_way(one: &ProcessInfo, other: &ProcessInfo) -> Option<&'static str> {
    match (&one.plan, &other.plan) {
        _ if other.alone => Some("and recomputes its cells (--force)"),
        _ if one.alone => Some("and needs the cells that --force throws away"),
        (Some(one), Some(other)) if one != other => Some("on another matrix"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::STALE_AFTER;

    #[test]
    fn those_who_would_spoil_each_others_cells_do_not_share_a_folder() {
        let out = tempfile::tempdir().unwrap();
        let open = |plan: &str, alone| {
            let info = ProcessInfo::this(Some(plan.into()), alone, STALE_AFTER);
            RunFolder::open(out.path(), "it", info, &|_| ())
        };
        let first = open("a", false).unwrap();
        open("a", false).unwrap();
        for (plan, alone, part) in [("b", false, "another matrix"), ("a", true, "--force")] {
            let error = open(plan, alone).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("--out"), "{error}");
        }
        drop(first);
        let alone = open("b", true).unwrap();
        let error = open("b", false).unwrap_err().to_string();
        assert!(error.contains("recomputes"), "{error}");
        drop(alone);
        open("a", false).unwrap();
    }
}
