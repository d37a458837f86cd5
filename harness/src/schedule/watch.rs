//! The progress of a run in a terminal, read from its folder alone: any process on any host may compute it.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use console::{Style, Term, truncate_str};
use plan::CellName;
use results::Row;
use storage::cell_folder;
use storage::host;
use storage::leases::{self, Holder, Token};

use super::status::{RunProgress, Status};
use crate::exit::Exit;
use crate::progress::{self, CellAtWork};
use crate::units::duration;

/// Results shown at first, and in every frame of `--once`.
const LATEST: usize = 5;
/// As wide as a frame is where no terminal says otherwise.
const WIDTH: usize = 120;

/// Shows the progress of a run periodically until nothing is left to compute, or once. Stopping this process
/// stops nothing else.
pub(crate) fn watch(mut run: RunProgress, once: bool, every: Duration, out: &mut dyn Write) -> Result<Exit> {
    let live = !once && std::io::stdout().is_terminal();
    let palette = Palette::new(live && console::colors_enabled());
    let stop = progress::stop_on_signal();
    let term = Term::stdout();
    let mut before: Option<Vec<bool>> = None;
    let mut drawn = 0;
    loop {
        let status = run.read()?;
        let news = match &before {
            None => latest(&run, LATEST),
            Some(before) => newly(&run, before),
        };
        before = Some(run.done.clone());
        let width = if live {
            usize::from(term.size().1).max(20)
        } else {
            WIDTH
        };
        let results: Vec<String> = news.iter().map(|name| palette.result(&run, name)).collect();
        let height = if live { usize::from(term.size().0) } else { usize::MAX };
        let frame = frame(&run, &status, &palette, height.saturating_sub(2));
        let ended = status.left == 0 && status.running.is_empty();
        if live {
            term.clear_last_lines(drawn)?;
            drawn = frame.len();
        }
        // Without a terminal, a frame whenever something has finished.
        if live || once || !news.is_empty() || ended {
            for line in results.iter().chain(&frame) {
                writeln!(out, "{}", truncate_str(line, width, "…"))?;
            }
            out.flush()?;
        }
        if ended || once {
            return Ok(match (ended, status.failed.is_empty()) {
                (true, false) => Exit::CellsFailed,
                _ => Exit::Success,
            });
        }
        let begun = std::time::Instant::now();
        while begun.elapsed() < every {
            if stop.load(Ordering::Relaxed) {
                return Ok(Exit::Interrupted);
            }
            std::thread::sleep(Duration::from_millis(50).min(every));
        }
    }
}

/// Colours, or none for plain text.
struct Palette {
    strong: Style,
    good: Style,
    bad: Style,
    soft: Style,
}

impl Palette {
    fn new(colours: bool) -> Self {
        let style = |style: Style| style.force_styling(colours);
        Self {
            strong: style(Style::new().bold()),
            good: style(Style::new().green()),
            bad: style(Style::new().red().bold()),
            soft: style(Style::new().dim()),
        }
    }

    /// A line for a finished cell.
    fn result(&self, run: &RunProgress, name: &CellName) -> String {
        let rows = results::read_rows(&run.root.join("cells").join(name).join(results::ROWS_FILE));
        let found = match rows.ok().and_then(|rows| rows.into_iter().next()) {
            Some(Row {
                accuracy: Some(accuracy),
                accuracy_low: Some(low),
                accuracy_high: Some(high),
                ..
            }) => format!(
                "{:.2} %, 95 % interval {:.1} to {:.1}",
                100.0 * accuracy,
                100.0 * low,
                100.0 * high
            ),
            _ => "trained".into(),
        };
        format!(
            "{} {}: {}",
            self.good.apply_to("done"),
            name.readable(),
            self.strong.apply_to(found)
        )
    }

    fn bar(&self, done: u64, total: u64, cells: usize) -> String {
        let share = if total == 0 { 0.0 } else { done as f64 / total as f64 };
        let full = ((share * cells as f64).floor() as usize).min(cells);
        let rest = self.soft.apply_to("·".repeat(cells - full));
        format!("{}{rest}", self.good.apply_to("█".repeat(full)))
    }
}

/// The cells that finished last, by the time of their last file, the latest last.
fn latest(run: &RunProgress, most: usize) -> Vec<CellName> {
    let done = run.names.iter().zip(&run.done).filter(|(_, done)| **done);
    let mut done: Vec<(SystemTime, &CellName)> = done
        .filter_map(|(name, _)| {
            let file = run.root.join("cells").join(name).join(cell_folder::STATUS);
            Some((std::fs::metadata(file).ok()?.modified().ok()?, name))
        })
        .collect();
    done.sort();
    let first = done.len().saturating_sub(most);
    done[first..].iter().map(|(_, name)| (*name).clone()).collect()
}

/// The cells that have finished since `before`.
fn newly(run: &RunProgress, before: &[bool]) -> Vec<CellName> {
    let both = run.names.iter().zip(run.done.iter().zip(before));
    both.filter(|(_, (now, before))| **now && !**before)
        .map(|(name, _)| name.clone())
        .collect()
}

/// The state of a run, in no more than `height` lines.
fn frame(run: &RunProgress, status: &Status, palette: &Palette, height: usize) -> Vec<String> {
    const LINES: usize = 20;
    const FAILED: usize = 5;
    let percent = 100.0 * status.done as f64 / status.cells.max(1) as f64;
    let failed = match status.failed.len() {
        0 => String::new(),
        some => format!(", {}", palette.bad.apply_to(format!("{some} failed"))),
    };
    let mut lines = vec![format!(
        "{} {} {} of {} cells ({percent:.0} %), {} at work, {} left{failed}{}",
        palette.strong.apply_to(run.root.display()),
        palette.bar(status.done as u64, status.cells as u64, 24),
        status.done,
        status.cells,
        status.running.len(),
        status.left,
        time_left(status),
    )];
    let at_work = at_work(run, status);
    let room = height
        .saturating_sub(lines.len() + status.failed.len().min(FAILED) + 2)
        .max(1);
    let most = LINES.min(room);
    for (name, holder, cell) in at_work.iter().take(most) {
        let since = duration(host::now().saturating_sub(holder.since) as f64);
        let who = palette
            .soft
            .apply_to(format!("{}, process {}, for {since}", holder.host, holder.process));
        lines.push(match cell {
            Some(cell) => format!(
                "  {} {name}: {}{who}",
                palette.bar(cell.done, cell.total, 10),
                describe(cell)
            ),
            None => format!("  {} {name}: {who}", palette.bar(0, 0, 10)),
        });
    }
    if at_work.len() > most {
        lines.push(format!("  … and {} more at work", at_work.len() - most));
    }
    for (name, error) in status.failed.iter().rev().take(FAILED) {
        lines.push(format!("  {} {name}: {error}", palette.bad.apply_to("failed")));
    }
    if status.failed.len() > FAILED {
        lines.push(format!(
            "  … and {} more failed; rampart status shows them",
            status.failed.len() - FAILED
        ));
    }
    lines
}

fn time_left(status: &Status) -> String {
    match status.seconds_left {
        _ if status.left == 0 && status.running.is_empty() => String::new(),
        _ if status.running.is_empty() => "; nobody is at work".into(),
        None => "; time left unknown yet".into(),
        Some(seconds) => format!("; about {} left", duration(seconds)),
    }
}

/// Running cells, with what their processes report.
fn at_work<'a>(run: &RunProgress, status: &'a Status) -> Vec<(&'a str, &'a Holder, Option<CellAtWork>)> {
    let mut reported = std::collections::HashMap::new();
    let cell = |name: &str, holder: &Holder, reported: &mut std::collections::HashMap<Token, Vec<CellAtWork>>| {
        let cells = reported.entry(holder.by.clone()).or_insert_with(|| {
            let file = leases::progress_file(&run.root, &holder.by);
            progress::read(&file).map(|process| process.cells).unwrap_or_default()
        });
        cells.iter().find(|cell| cell.name == name).cloned()
    };
    status
        .running
        .iter()
        .map(|(name, holder)| (name.as_str(), holder, cell(name, holder, &mut reported)))
        .collect()
}

/// What a process reports about a cell, such as `epoch 3 loss 0.512, 120 images/s, 5 s left, `.
fn describe(cell: &CellAtWork) -> String {
    let mut text = String::new();
    if !cell.note.is_empty() {
        text += &format!("{}, ", cell.note);
    }
    if let Some(rate) = cell.images_per_second {
        text += &format!(
            "{} images/s, ",
            if rate < 10.0 {
                format!("{rate:.1}")
            } else {
                format!("{rate:.0}")
            }
        );
    }
    if let Some(seconds) = cell.seconds_left {
        text += &format!("{} left, ", duration(seconds));
    }
    text
}
