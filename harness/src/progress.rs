//! Progress on stderr, for people: one bar for all cells, one for each cell at work. Nothing is
//! drawn where stderr is not a terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Progress of a whole run.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bars: MultiProgress,
    cells: ProgressBar,
    stop: Arc<AtomicBool>,
}

/// Progress of one cell, and whether it should stop.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    bars: MultiProgress,
    stop: Arc<AtomicBool>,
}

impl Progress {
    /// Progress over `cells`; `stop` is set by a signal.
    pub(crate) fn new(cells: usize, stop: Arc<AtomicBool>) -> Self {
        let bars = MultiProgress::new();
        let style = "{prefix:>12} [{bar:30}] {pos}/{len} cells · {elapsed} elapsed";
        let all = bars.add(ProgressBar::new(cells as u64).with_prefix("matrix"));
        all.set_style(
            ProgressStyle::with_template(style)
                .expect("a valid template")
                .progress_chars("=> "),
        );
        all.enable_steady_tick(Duration::from_millis(500));
        Self { bars, cells: all, stop }
    }

    /// A bar for a cell that starts now.
    pub(crate) fn cell(&self, what: &str, name: &str) -> Bar {
        let style = "{prefix:>12} {msg} [{bar:30}] {pos}/{len} {per_sec} {eta}";
        let bar = self.bars.add(
            ProgressBar::new(0)
                .with_prefix(what.to_string())
                .with_message(name.to_string()),
        );
        bar.set_style(
            ProgressStyle::with_template(style)
                .expect("a valid template")
                .progress_chars("=> "),
        );
        Bar {
            bar,
            bars: self.bars.clone(),
            stop: self.stop.clone(),
        }
    }

    /// One more cell has ended.
    pub(crate) fn ended(&self) {
        self.cells.inc(1);
    }

    /// Prints a line above the bars.
    pub(crate) fn say(&self, line: &str) {
        self.bars.suspend(|| eprintln!("{line}"));
    }

    /// Whether a signal asked for an end.
    pub(crate) fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes the bars away.
    pub(crate) fn finish(&self) {
        self.cells.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Bar {
    /// A bar nobody sees, for tests.
    #[cfg(test)]
    pub(crate) fn hidden() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            bars: MultiProgress::new(),
            stop: Arc::default(),
        }
    }

    /// A bar nobody sees, that a test can stop.
    #[cfg(test)]
    pub(crate) fn stopped_by(stop: Arc<AtomicBool>) -> Self {
        Self {
            bar: ProgressBar::hidden(),
            bars: MultiProgress::new(),
            stop,
        }
    }

    /// The work is `total` steps, of which `done` are done.
    pub(crate) fn start(&self, total: u64, done: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.reset_eta();
    }

    /// Some steps are done.
    pub(crate) fn advance(&self, steps: u64, note: impl Fn() -> String) {
        self.bar.inc(steps);
        self.note(note);
    }

    /// What the cell is at.
    pub(crate) fn note(&self, note: impl Fn() -> String) {
        if !self.bar.is_hidden() {
            self.bar.set_prefix(note());
        }
    }

    /// Prints a line above the bars.
    pub(crate) fn say(&self, line: &str) {
        self.bars.suspend(|| eprintln!("{line}"));
    }

    /// Whether a signal asked for an end.
    pub(crate) fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
