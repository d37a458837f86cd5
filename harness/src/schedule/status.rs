//! Progress of a run, read from its folder alone: which process computes which cell.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use plan::CellName;
use plan::matrix::Matrix;
use serde_json::json;
use storage::cell_folder::{self, RecordedState};
use storage::host;
use storage::leases::{self, Holder};

use crate::exit::Stop;
use crate::table_specs;
use crate::units::duration;

/// A folder is a run's own; a file is a matrix, whose run is where `run` puts it.
pub(crate) fn run_folder(run: &Path, out: &Path) -> Result<PathBuf> {
    if run.is_dir() {
        return Ok(run.to_path_buf());
    }
    if !run.exists() {
        return Err(Stop::usage(format!(
            "{} is neither a run's folder nor a matrix",
            run.display()
        )));
    }
    let matrix = Matrix::read(run, &[])?;
    let root = out.join(&matrix.name);
    if !root.is_dir() {
        return Err(Stop::usage(format!(
            "{} does not exist: {} has not been run yet; `rampart plan` lists its cells",
            root.display(),
            run.display(),
        )));
    }
    Ok(root)
}

/// The state of a run when its folder was read.
pub(crate) struct Status {
    pub(crate) cells: usize,
    pub(crate) done: usize,
    pub(crate) running: Vec<(String, Holder)>,
    pub(crate) failed: Vec<(String, String)>,
    /// Cells to compute on which no process works, some of them begun.
    pub(crate) left: usize,
    begun: usize,
    /// Estimated from the speed of the running cells; `None`: unknown.
    pub(crate) seconds_left: Option<f64>,
}

/// A run whose folder is read, perhaps again and again.
pub(crate) struct RunProgress {
    pub(crate) root: PathBuf,
    /// The names of cells' folders, trainings first.
    pub(crate) names: Vec<CellName>,
    /// What each cell is called without its seed.
    groups: Vec<String>,
    /// Cells that were done at an earlier reading are not read again.
    pub(crate) done: Vec<bool>,
    /// Cells that were done, and seconds left, when this was last estimated.
    estimated: Option<(usize, Option<f64>)>,
}

impl RunProgress {
    /// Reads what the matrix asks for.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let (names, trainings) = table_specs::cells(root)?;
        Ok(Self {
            root: root.to_path_buf(),
            groups: groups(&names, trainings),
            done: vec![false; names.len()],
            names,
            estimated: None,
        })
    }

    /// Reads its state now.
    pub(crate) fn read(&mut self) -> Result<Status> {
        let folders = self.root.join("cells");
        let held = leases::watch(&self.root)?.into_values();
        let held: HashMap<String, Holder> = held
            .filter_map(|holder| Some((holder.work.cell()?.key_digits().to_string(), holder)))
            .collect();
        let begun = leases::begun(&self.root)?;
        let mut status = Status {
            cells: self.names.len(),
            done: 0,
            running: Vec::new(),
            failed: Vec::new(),
            left: 0,
            begun: 0,
            seconds_left: None,
        };
        for (name, done) in self.names.iter().zip(&mut self.done) {
            let holder = held.get(name.key_digits());
            if !*done {
                match cell_folder::recorded_state(&folders.join(name)) {
                    RecordedState::Done => *done = true,
                    RecordedState::Failed(error) if holder.is_none() => {
                        status.failed.push((name.readable().to_string(), error));
                        continue;
                    }
                    RecordedState::Failed(_) | RecordedState::Unfinished => {}
                }
            }
            match holder {
                _ if *done => status.done += 1,
                Some(holder) => status.running.push((name.readable().to_string(), holder.clone())),
                None => {
                    status.left += 1;
                    status.begun += usize::from(begun.contains(name));
                }
            }
        }
        status.seconds_left = self.estimate(&status);
        Ok(status)
    }

    /// Reads timings only where a cell has finished since.
    fn estimate(&mut self, status: &Status) -> Option<f64> {
        let work = match self.estimated {
            Some((done, work)) if done == status.done => work,
            _ => {
                let failed: HashSet<&str> = status.failed.iter().map(|(name, _)| name.as_str()).collect();
                let mut done: BTreeMap<&str, Vec<&CellName>> = BTreeMap::new();
                let mut unfinished: BTreeMap<&str, usize> = BTreeMap::new();
                for ((name, group), is_done) in self.names.iter().zip(&self.groups).zip(&self.done) {
                    if *is_done {
                        done.entry(group).or_default().push(name);
                    } else if !failed.contains(name.readable()) {
                        *unfinished.entry(group).or_default() += 1;
                    }
                }
                estimate(&self.root.join("cells"), &done, &unfinished)
            }
        };
        self.estimated = Some((status.done, work));
        Some(work? / status.running.len().max(1) as f64)
    }
}

impl Status {
    pub(crate) fn as_json(&self, root: &Path) -> serde_json::Value {
        let running = self.running.iter().map(
            |(name, holder)| json!({ "name": name, "host": holder.host, "process": holder.process, "since": holder.since }),
        );
        let failed = self
            .failed
            .iter()
            .map(|(name, error)| json!({ "name": name, "error": error }));
        json!({
            "run": root, "cells": self.cells, "done": self.done, "left": self.left, "begun": self.begun,
            "running": running.collect::<Vec<_>>(), "failed": failed.collect::<Vec<_>>(),
            "seconds_left": self.seconds_left,
        })
    }

    pub(crate) fn print(&self, root: &Path, out: &mut dyn Write) -> Result<()> {
        const LINES: usize = 20;
        let more = |all: usize| match all.saturating_sub(LINES) {
            0 => String::new(),
            more => format!("  … and {more} more (--json shows all)\n"),
        };
        let begun = match self.begun {
            0 => String::new(),
            begun => format!(" ({begun} begun)"),
        };
        writeln!(
            out,
            "{}: {} cells: {} done, {} at work, {} failed, {} left{begun}",
            root.display(),
            self.cells,
            self.done,
            self.running.len(),
            self.failed.len(),
            self.left,
        )?;
        if !self.running.is_empty() {
            writeln!(out, "at work:")?;
            for (name, holder) in self.running.iter().take(LINES) {
                let since = host::now().saturating_sub(holder.since) as f64;
                writeln!(out, "  {name}: {holder}, for {}", duration(since))?;
            }
            write!(out, "{}", more(self.running.len()))?;
        }
        if !self.failed.is_empty() {
            writeln!(out, "failed:")?;
            for (name, error) in self.failed.iter().take(LINES) {
                writeln!(out, "  {name}: {error}")?;
            }
            write!(out, "{}", more(self.failed.len()))?;
        }
        match self.seconds_left {
            _ if self.running.is_empty() && self.left == 0 => {}
            None => writeln!(out, "time left: unknown, nothing like it has finished yet")?,
            Some(seconds) => {
                let at_once = self.running.len().max(1);
                writeln!(out, "time left: about {}, {at_once} at once", duration(seconds))?;
            }
        }
        Ok(())
    }
}

/// Of every cell, what it is called without its seed: cells of one such name take about as long.
fn groups(cells: &[CellName], trainings: usize) -> Vec<String> {
    let trained: HashMap<&str, &str> = cells[..trainings]
        .iter()
        .map(CellName::readable)
        .map(|name| (name, name.rsplit_once("-s").map_or("", |(name, _)| name)))
        .collect();
    let group = |(i, name): (usize, &CellName)| {
        let slug = name.readable();
        if i < trainings {
            return format!("train {}", trained[slug]);
        }
        // The name of an evaluation is that of its training, then of the checkpoint and the attack.
        let ends = slug.match_indices('-').map(|(end, _)| end).rev();
        let own = ends
            .map(|end| slug.split_at(end))
            .find_map(|(of, rest)| Some((trained.get(of)?, rest)));
        own.map_or_else(
            || format!("attack {slug}"),
            |(network, attack)| format!("attack {network}{attack}"),
        )
    };
    cells.iter().enumerate().map(group).collect()
}

/// Seconds that the unfinished cells take one after the other, if finished ones of their kinds are anything to go by.
/// Only a few of these are read.
fn estimate(folders: &Path, done: &BTreeMap<&str, Vec<&CellName>>, unfinished: &BTreeMap<&str, usize>) -> Option<f64> {
    const IN_ALL: usize = 60;
    let kind = |group: &str| group.split(' ').next().unwrap_or_default().to_string();
    let each = (IN_ALL / done.len().max(1)).clamp(1, 8);
    let mut by_group: HashMap<&str, f64> = HashMap::new();
    let mut by_kind: HashMap<String, (f64, usize)> = HashMap::new();
    // Groups with something left first: the others only help where these have no finished cell.
    let mut groups: Vec<_> = done.iter().collect();
    groups.sort_by_key(|(group, _)| !unfinished.contains_key(*group));
    for (group, names) in groups.into_iter().take(IN_ALL / each) {
        let some = names.iter().step_by(names.len().div_ceil(each));
        let seconds: Vec<f64> = some
            .filter_map(|name| results::read_timings(&folders.join(name).join(results::TIMINGS_FILE)).ok())
            .flat_map(|timings| timings.into_iter().map(|timing| timing.seconds))
            .collect();
        if seconds.is_empty() {
            continue;
        }
        let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
        by_group.insert(group, mean);
        let of_kind = by_kind.entry(kind(group)).or_default();
        *of_kind = (of_kind.0 + mean, of_kind.1 + 1);
    }
    let mut left = 0.0;
    for (group, cells) in unfinished {
        let of_kind = || by_kind.get(&kind(group)).map(|(sum, n)| sum / *n as f64);
        left += by_group.get(group).copied().or_else(of_kind)? * *cells as f64;
    }
    Some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_differ_by_seed_alone_are_of_one_group() {
        let cells = [
            "digits-net-mart-s0",
            "digits-net-mart-s1",
            "digits-net-mart-s10-best-pgd-20",
        ];
        let mut cells = cells.map(|name| CellName::new("0123456789abcdef", name)).to_vec();
        cells.insert(2, CellName::new("0123456789abcdef", "digits-net-mart-s10"));
        let expected = ["train digits-net-mart"; 3]
            .into_iter()
            .chain(["attack digits-net-mart-best-pgd-20"]);
        assert_eq!(groups(&cells, 3), expected.collect::<Vec<_>>());
    }
}
