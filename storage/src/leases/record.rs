//! Leases as they are written: the files in `claims`.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use plan::CellName;
use serde::{Deserialize, Serialize};

use super::listing::{names, remove, shared_temporary};
use super::token::Token;
use crate::files;

/// The folder of leases, in a run's.
pub(super) const LEASES: &str = "claims";
/// The key of the lease that a process takes while it writes a run's tables.
pub(super) const TABLES: &str = "tables";

/// Who holds a lease, and where it works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Token of the process.
    pub by: Token,
    /// Name of the process's host.
    pub host: String,
    /// The process's number.
    pub process: u32,
    /// Seconds since 1970, for people.
    pub since: u64,
    /// The folder in `cells` where it works.
    pub work: WorkName,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)
    }
}

/// The name of the folder in which a cell is computed: the cell's name, a dot and a token. A lease out of a foreign
/// folder can name no other folder, so a process that takes it over neither moves nor removes anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkName {
    /// `None`: the lease on the run's tables, which are not written in a folder of the holder's own.
    cell: Option<CellName>,
    token: Token,
}

impl WorkName {
    pub(super) fn new(cell: Option<CellName>) -> Self {
        Self {
            cell,
            token: Token::new(),
        }
    }

    /// The cell that is computed there. `None`: the run's tables are written.
    pub fn cell(&self) -> Option<&CellName> {
        self.cell.as_ref()
    }

    /// Whether a lease under this key may work there.
    fn belongs_to(&self, key: &str) -> bool {
        match &self.cell {
            Some(cell) => key.starts_with(cell.key_digits()),
            None => key == TABLES,
        }
    }

    /// The folder, in a run's. While tables are written there is none.
    pub fn folder(&self, root: &Path) -> PathBuf {
        root.join("cells").join(self.to_string())
    }
}

impl std::fmt::Display for WorkName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cell = self.cell.as_ref().map_or(TABLES, CellName::as_str);
        write!(f, "{cell}.{}", self.token)
    }
}

/// Text that is not the name of a folder in which a cell is computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not the name of a folder in which a cell is computed", .0.escape_debug())]
pub struct NotAWorkName(String);

impl FromStr for WorkName {
    type Err = NotAWorkName;

    fn from_str(name: &str) -> Result<Self, NotAWorkName> {
        let parse = || -> Option<Self> {
            let (cell, token) = name.rsplit_once('.')?;
            Some(Self {
                cell: if cell == TABLES { None } else { Some(cell.parse().ok()?) },
                token: token.parse().ok()?,
            })
        };
        parse().ok_or_else(|| NotAWorkName(name.to_string()))
    }
}

impl TryFrom<String> for WorkName {
    type Error = NotAWorkName;

    fn try_from(name: String) -> Result<Self, NotAWorkName> {
        name.parse()
    }
}

impl From<WorkName> for String {
    fn from(name: WorkName) -> Self {
        name.to_string()
    }
}

/// The holder that a lease names. `None`: it is gone, or damaged, as after a power cut.
pub fn read_holder(root: &Path, key: &str, number: u64) -> Option<Holder> {
    let holder: Option<Holder> = files::read_json(&lease_file(root, key, number)).ok().flatten();
    holder.filter(|holder| holder.work.belongs_to(key))
}

pub(super) fn lease_file(root: &Path, key: &str, number: u64) -> PathBuf {
    root.join(LEASES).join(format!("{key}.{number}"))
}

/// Writes a lease's file, complete or not at all. `false`: another process has.
pub(super) fn write_new(root: &Path, key: &str, number: u64, holder: &Holder) -> Result<bool> {
    let file = lease_file(root, key, number);
    let write = || -> std::io::Result<()> {
        let mut temporary = shared_temporary(&root.join(LEASES))?;
        temporary.write_all(serde_json::to_string(holder)?.as_bytes())?;
        // Closed before it gets its name: other hosts then see the name with the content.
        temporary.into_temp_path().persist_noclobber(&file)?;
        Ok(())
    };
    match write() {
        Ok(()) => Ok(true),
        // A network file system may report an error although it wrote the file.
        Err(_) if read_holder(root, key, number).as_ref() == Some(holder) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        // Another process tidied up meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            files::make_folder(&root.join(LEASES))?;
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| files::refused(&file)),
    }
}

/// Every lease: key and number. Files with other names are ignored.
fn leases(root: &Path) -> Result<Vec<(String, u64)>> {
    let is_key = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let parse = |name: &String| -> Option<(String, u64)> {
        let (key, number) = name.split_once('.')?;
        Some((is_key(key).then(|| key.to_string())?, number.parse().ok()?))
    };
    Ok(names(&root.join(LEASES))?.iter().filter_map(parse).collect())
}

/// The numbers of a key's leases, ascending.
pub(super) fn numbers(root: &Path, key: &str) -> Result<Vec<u64>> {
    let of_key = leases(root)?.into_iter().filter(|(of, _)| of == key);
    let mut numbers: Vec<u64> = of_key.map(|(_, number)| number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The holder of each lease, alive or not: for every key, the lease with the highest number counts.
pub(super) fn last_holders(root: &Path) -> Result<BTreeMap<String, Holder>> {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for (key, number) in leases(root)? {
        let highest = last.entry(key).or_default();
        *highest = (*highest).max(number);
    }
    let holder = |(key, number): (String, u64)| {
        let holder = read_holder(root, &key, number)?;
        Some((key, holder))
    };
    Ok(last.into_iter().filter_map(holder).collect())
}

/// Removes files of leases that were never given their names.
pub(super) fn remove_unnamed(folder: &Path) -> Result<()> {
    for name in names(folder)?.iter().filter(|name| name.starts_with('.')) {
        remove(&folder.join(name));
    }
    Ok(())
}
