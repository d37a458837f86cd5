//! Taking, holding and ending leases.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use plan::CellName;

use super::listing::{remove, remove_folder};
use super::process::{Process, Shared};
use super::record::{Holder, TABLES, WorkName, last_holders, lease_file, numbers, read_holder, write_new};
use super::token::Token;
use crate::host;

/// The result of an attempt to lease a cell.
#[derive(Debug)]
pub enum Attempt {
    /// This process holds it.
    Held(Lease),
    /// Another process works on it.
    Busy(Holder),
}

/// A cell that this process holds.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    key: String,
    number: u64,
    holder: Holder,
    work: PathBuf,
}

/// How a finished cell got its final name.
#[derive(Debug, PartialEq, Eq)]
pub enum Published {
    /// This process computed it.
    Ours,
    /// Another process had finished it.
    Theirs,
    /// The lease was taken over, and with it the folder.
    Lost,
}

impl Process {
    /// Leases the cell with this key and folder, unless a living process holds it. What a dead holder had begun is
    /// then found in [`Lease::work`].
    ///
    /// # Errors
    /// If the run's folder cannot be read or written.
    pub fn lease(&self, key: &str, cell: &CellName) -> Result<Attempt> {
        self.lease_for(key, Some(cell))
    }

    /// Leases the writing of the run's tables. Waits for the process that holds it; `None` if `stop` is true meanwhile.
    ///
    /// # Errors
    /// If the run's folder cannot be read or written.
    pub fn wait_for_tables(&self, stop: &dyn Fn() -> bool) -> Result<Option<Lease>> {
        loop {
            match self.lease_for(TABLES, None)? {
                Attempt::Held(lease) => return Ok(Some(lease)),
                Attempt::Busy(_) if stop() => return Ok(None),
                Attempt::Busy(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// The live holders of these keys.
    ///
    /// # Errors
    /// If the run's folder cannot be read.
    pub fn holders(&self, keys: &[&str]) -> Result<BTreeMap<String, Holder>> {
        let mut all = last_holders(&self.shared.root)?;
        all.retain(|key, holder| keys.contains(&key.as_str()) && self.shared.lives(&holder.by));
        Ok(all)
    }

    fn lease_for(&self, key: &str, cell: Option<&CellName>) -> Result<Attempt> {
        let shared = &self.shared;
        let root = &shared.root;
        loop {
            let last = numbers(root, key)?.last().copied();
            if let Some(holder) = last.and_then(|number| read_holder(root, key, number))
                && shared.lives(&holder.by)
            {
                return Ok(Attempt::Busy(holder));
            }
            let number = last.map_or(Some(1), |last| last.checked_add(1)).with_context(|| {
                let file = lease_file(root, key, u64::MAX);
                format!("{} is no lease of this program; delete it", file.display())
            })?;
            let holder = Holder {
                by: shared.token(),
                host: shared.info.host.clone(),
                process: shared.info.process,
                since: host::now(),
                work: WorkName::new(cell.cloned()),
            };
            if !write_new(root, key, number, &holder)? {
                continue;
            }
            let lease = Lease {
                shared: shared.clone(),
                key: key.to_string(),
                number,
                work: holder.work.folder(root),
                holder,
            };
            // Another process may have seen an older list, and used a number that is out of date.
            let now = numbers(root, key)?;
            if now.last() != Some(&number) {
                lease.remove();
                continue;
            }
            lease.adopt(now.into_iter().rev().skip(1))?;
            return Ok(Attempt::Held(lease));
        }
    }
}

impl Lease {
    /// Where to work. The folder exists if a dead holder had begun.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// This process, as others see it at the cell.
    pub fn holder(&self) -> Holder {
        self.holder.clone()
    }

    /// Takes the folder of the last holder that left one, and removes all earlier leases.
    fn adopt(&self, older: impl Iterator<Item = u64>) -> Result<()> {
        let root = &self.shared.root;
        for number in older {
            if let Some(holder) = read_holder(root, &self.key, number) {
                let left = holder.work.folder(root);
                if self.work.exists() {
                    remove_folder(&left);
                } else {
                    match fs::rename(&left, &self.work) {
                        Err(error) if error.kind() != ErrorKind::NotFound => {
                            return Err(error).with_context(|| format!("cannot rename {}", left.display()));
                        }
                        _ => {}
                    }
                }
            }
            remove(&lease_file(root, &self.key, number));
        }
        Ok(())
    }

    /// Whether the lease is still valid, as far as can be seen now.
    pub fn holds(&self) -> bool {
        let last = numbers(&self.shared.root, &self.key)
            .ok()
            .and_then(|all| all.last().copied());
        self.holder.by == self.shared.token() && last == Some(self.number)
    }

    /// Gives the cell's folder its final name, unless `ended` finds that another process has, and ends the lease. A
    /// folder that is there and has not ended is replaced.
    ///
    /// # Errors
    /// If the folder cannot be renamed.
    pub fn publish(self, folder: &Path, ended: &dyn Fn() -> bool) -> Result<Published> {
        loop {
            match fs::rename(&self.work, folder) {
                Ok(()) => {
                    self.remove();
                    return Ok(Published::Ours);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Published::Lost),
                Err(_) if ended() => {
                    remove_folder(&self.work);
                    self.remove();
                    return Ok(Published::Theirs);
                }
                Err(error) if folder.exists() => {
                    let aside = folder.with_extension(Token::new().to_string());
                    fs::rename(folder, &aside)
                        .with_context(|| format!("cannot replace {} ({error})", folder.display()))?;
                    remove_folder(&aside);
                }
                Err(error) => return Err(error).with_context(|| format!("cannot write {}", folder.display())),
            }
        }
    }

    /// Ends the lease without a result, and removes what was begun with it.
    pub fn abandon(self) {
        remove_folder(&self.work);
        self.remove();
    }

    /// A process that took the lease over has removed it, and the number may have come again since.
    fn remove(&self) {
        let root = &self.shared.root;
        if read_holder(root, &self.key, self.number).as_ref() == Some(&self.holder) {
            remove(&lease_file(root, &self.key, self.number));
        }
    }
}
