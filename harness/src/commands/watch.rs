//! A run as it gets on, in a terminal, out of its folder alone: who works in it, and on which host, does not matter.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use clap::Args;
use console::{Style, Term, truncate_str};
use results::Row;

use super::plan::duration;
use super::status::{Run, Status, run_folder, slug};
use crate::claims;
use crate::exit::Exit;
use crate::folder;
use crate::host;
use crate::progress::{self, CellAtWork};

/// Which run.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Ends with exit code 0 when every cell is done, 3 when no cell is left but some failed. Ctrl-C ends the watching \
                  and leaves the run alone. Where stdout is no terminal, prints plain lines whenever a cell has finished."
)]
pub(crate) struct WatchArgs {
    /// The folder of a run, such as `runs/digits`, or its matrix.
    pub(crate) run: PathBuf,
    /// Where runs are kept, for a matrix.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) out: PathBuf,
    /// Print how the run stands once, as plain text, and end.
    #[arg(long)]
    pub(crate) once: bool,
    /// Look again after so long.
    #[arg(long, value_name = "SECONDS", default_value = "1")]
    pub(crate) every: f64,
}

/// Results shown at first, and in every frame of `--once`.
const LATEST: usize = 5;
/// As wide as a frame is where no terminal says otherwise.
const WIDTH: usize = 120;

/// Shows a run until nothing of it is left to do. Whoever stops watching stops nothing else.
pub(crate) fn main(args: &WatchArgs, out: &mut dyn Write) -> Result<Exit> {
    let every = Duration::try_from_secs_f64(args.every)
        .ok()
        .filter(|it| *it >= Duration::from_millis(100))
        .ok_or_else(|| crate::exit::Stop::usage(format!("--every {}: at least 0.1 seconds", args.every)))?;
    let mut run = Run::open(&run_folder(&args.run, &args.out)?)?;
    let live = !args.once && std::io::stdout().is_terminal();
    let look = Look::new(live && console::colors_enabled());
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // Only the first handler counts; tests in one process may come here twice.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let term = Term::stdout();
    let mut before: Option<Vec<bool>> = None;
    let mut drawn = 0;
    loop {
        let status = run.look()?;
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
        let results: Vec<String> = news.iter().map(|name| look.result(&run, name)).collect();
        let height = if live { usize::from(term.size().0) } else { usize::MAX };
        let frame = frame(&run, &status, &look, height.saturating_sub(2));
        let ended = status.left == 0 && status.running.is_empty();
        if live {
            term.clear_last_lines(drawn)?;
            drawn = frame.len();
        }
        // Without a terminal, a frame whenever something has finished.
        if live || args.once || !news.is_empty() || ended {
            for line in results.iter().chain(&frame) {
                writeln!(out, "{}", truncate_str(line, width, "…"))?;
            }
            out.flush()?;
        }
        if ended || args.once {
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

/// Colours, or none.
struct Look {
    strong: Style,
    good: Style,
    bad: Style,
    soft: Style,
}

impl Look {
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
    fn result(&self, run: &Run, name: &str) -> String {
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
            slug(name),
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
fn latest(run: &Run, most: usize) -> Vec<String> {
    let done = run.names.iter().zip(&run.done).filter(|(_, done)| **done);
    let mut done: Vec<(SystemTime, &String)> = done
        .filter_map(|(name, _)| {
            let file = run.root.join("cells").join(name).join(folder::STATUS);
            Some((std::fs::metadata(file).ok()?.modified().ok()?, name))
        })
        .collect();
    done.sort();
    let first = done.len().saturating_sub(most);
    done[first..].iter().map(|(_, name)| (*name).clone()).collect()
}

/// The cells that have finished since `before`.
fn newly(run: &Run, before: &[bool]) -> Vec<String> {
    let both = run.names.iter().zip(run.done.iter().zip(before));
    both.filter(|(_, (now, before))| **now && !**before)
        .map(|(name, _)| name.clone())
        .collect()
}

/// How a run stands, in no more than `height` lines.
fn frame(run: &Run, status: &Status, look: &Look, height: usize) -> Vec<String> {
    const LINES: usize = 20;
    const FAILED: usize = 5;
    let percent = 100.0 * status.done as f64 / status.cells.max(1) as f64;
    let failed = match status.failed.len() {
        0 => String::new(),
        some => format!(", {}", look.bad.apply_to(format!("{some} failed"))),
    };
    let mut lines = vec![format!(
        "{} {} {} of {} cells ({percent:.0} %), {} at work, {} left{failed}{}",
        look.strong.apply_to(run.root.display()),
        look.bar(status.done as u64, status.cells as u64, 24),
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
    for (name, note, cell) in at_work.iter().take(most) {
        let since = duration(host::now().saturating_sub(note.since) as f64);
        let who = look
            .soft
            .apply_to(format!("{}, process {}, for {since}", note.host, note.process));
        lines.push(match cell {
            Some(cell) => format!("  {} {name}: {}{who}", look.bar(cell.done, cell.total, 10), said(cell)),
            None => format!("  {} {name}: {who}", look.bar(0, 0, 10)),
        });
    }
    if at_work.len() > most {
        lines.push(format!("  … and {} more at work", at_work.len() - most));
    }
    for (name, error) in status.failed.iter().rev().take(FAILED) {
        lines.push(format!("  {} {name}: {error}", look.bad.apply_to("failed")));
    }
    if status.failed.len() > FAILED {
        lines.push(format!(
            "  … and {} more failed; harness status shows them",
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

/// Cells at work, with what their processes say of them.
fn at_work<'a>(run: &Run, status: &'a Status) -> Vec<(&'a str, &'a claims::Note, Option<CellAtWork>)> {
    let mut said = std::collections::HashMap::new();
    let cell = |name: &str, note: &claims::Note, said: &mut std::collections::HashMap<String, Vec<CellAtWork>>| {
        let cells = said.entry(note.by.clone()).or_insert_with(|| {
            let file = claims::progress_file(&run.root, &note.by);
            progress::read(&file).map(|it| it.cells).unwrap_or_default()
        });
        cells.iter().find(|it| it.name == name).cloned()
    };
    status
        .running
        .iter()
        .map(|(name, note)| (name.as_str(), note, cell(name, note, &mut said)))
        .collect()
}

/// What a process says of a cell, such as `epoch 3 loss 0.512, 120 images/s, 5 s left, `.
fn said(cell: &CellAtWork) -> String {
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
