//! Progress, for people: on stderr one bar for all cells and one for each cell at work, drawn only where stderr is a
//! terminal; and in a file of the process, now and then, for `rampart watch`. No result depends on it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use storage::{files, host};

use crate::panics::locked;
use crate::stderr::say;

/// Between two notes of how far the cells at work are.
const PAUSE: Duration = Duration::from_secs(2);
/// As long as a cell's folder's name shows of it.
const NAME: usize = 100;

/// A flag that the first Ctrl-C or request to terminate sets.
pub(crate) fn stop_on_signal() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // Only the first handler counts; tests in one process may come here twice.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    stop
}

/// Progress of a whole run.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bars: MultiProgress,
    cells: ProgressBar,
    stop: Arc<AtomicBool>,
    at_work: Arc<Mutex<Vec<Arc<Place>>>>,
}

/// Progress of one cell, and whether it should stop.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    bars: MultiProgress,
    stop: Arc<AtomicBool>,
    place: Arc<Place>,
    at_work: Arc<Mutex<Vec<Arc<Place>>>>,
}

/// How far a cell is.
#[derive(Debug, Default)]
struct Place {
    name: String,
    done: AtomicU64,
    /// Images in a step.
    images: AtomicU64,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    total: u64,
    /// Steps that were done when this process began, and when that was.
    begun: Option<(u64, Instant)>,
    note: String,
    noted: Option<Instant>,
}

/// What a process says of its cells at work.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AtWork {
    /// Seconds since 1970.
    pub(crate) at: u64,
    pub(crate) cells: Vec<CellAtWork>,
}

/// How far a cell at work is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CellAtWork {
    /// As its folder's name shows it.
    pub(crate) name: String,
    /// Such as `epoch 3 loss 0.512`.
    pub(crate) note: String,
    /// Steps of a training, images of an evaluation.
    pub(crate) done: u64,
    pub(crate) total: u64,
    /// Since this process began with it.
    pub(crate) images_per_second: Option<f64>,
    pub(crate) seconds_left: Option<f64>,
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
        Self {
            bars,
            cells: all,
            stop,
            at_work: Arc::default(),
        }
    }

    /// Writes how far the cells at work are to a file, every two seconds at most, as long as the value lives. `file` says
    /// where; it may change.
    pub(crate) fn publish(&self, file: impl Fn() -> PathBuf + Send + 'static) -> Result<Publisher> {
        let (at_work, stopped) = (self.at_work.clone(), Arc::new((Mutex::new(false), Condvar::new())));
        let until = stopped.clone();
        let publish = move || {
            let (stopped, stop) = &*until;
            let mut written: Option<(PathBuf, Vec<CellAtWork>)> = None;
            let mut now = locked(stopped);
            while !*now {
                now = stop.wait_timeout(now, PAUSE).unwrap_or_else(PoisonError::into_inner).0;
                let places = locked(&at_work);
                let cells: Vec<CellAtWork> = places.iter().map(|place| place.told()).collect();
                drop(places);
                if *now || written.as_ref().is_some_and(|(_, before)| *before == cells) {
                    continue;
                }
                let file = file();
                // `rampart watch` shows less while the folder is out of reach.
                let _ = write(
                    &file,
                    &AtWork {
                        at: host::now(),
                        cells: cells.clone(),
                    },
                );
                if let Some((before, _)) = written.replace((file.clone(), cells))
                    && before != file
                {
                    let _ = std::fs::remove_file(before);
                }
            }
            if let Some((file, _)) = written {
                let _ = std::fs::remove_file(file);
            }
        };
        let thread = std::thread::Builder::new().name("progress".into()).spawn(publish);
        Ok(Publisher {
            stopped,
            thread: Some(thread.context("cannot start a thread")?),
        })
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
        let place = Arc::new(Place {
            name: name.chars().take(NAME).collect(),
            ..Place::default()
        });
        locked(&self.at_work).push(place.clone());
        Bar {
            bar,
            bars: self.bars.clone(),
            stop: self.stop.clone(),
            place,
            at_work: self.at_work.clone(),
        }
    }

    /// One more cell has ended.
    pub(crate) fn ended(&self) {
        self.cells.inc(1);
    }

    /// Prints a line above the bars.
    pub(crate) fn say(&self, line: &str) {
        self.bars.suspend(|| say(line));
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

/// What a process reported about its running cells; `None` if it reported nothing.
pub(crate) fn read(file: &Path) -> Option<AtWork> {
    files::read_json(file).ok().flatten()
}

/// Whole or not at all, so that readers see valid JSON; but not forced to disk, since it means nothing after a crash.
fn write(file: &Path, at_work: &AtWork) -> Result<()> {
    let folder = file.parent().context("a file in a folder")?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut temporary = builder.tempfile_in(folder)?;
    temporary.write_all(&serde_json::to_vec(at_work)?)?;
    temporary.persist(file)?;
    Ok(())
}

/// Writes how far cells are as long as it lives.
#[derive(Debug)]
pub(crate) struct Publisher {
    stopped: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        *locked(&self.stopped.0) = true;
        self.stopped.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Place {
    fn told(&self) -> CellAtWork {
        let said = locked(&self.said);
        let done = self.done.load(Ordering::Relaxed);
        let images = self.images.load(Ordering::Relaxed).max(1) as f64;
        let per_second = said.begun.and_then(|(before, since)| {
            let (steps, seconds) = (done.saturating_sub(before) as f64, since.elapsed().as_secs_f64());
            (steps > 0.0 && seconds > 0.0).then_some(steps / seconds)
        });
        CellAtWork {
            name: self.name.clone(),
            note: said.note.clone(),
            done,
            total: said.total,
            images_per_second: per_second.map(|rate| rate * images),
            seconds_left: per_second.map(|rate| said.total.saturating_sub(done) as f64 / rate),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        let mut places = locked(&self.at_work);
        places.retain(|place| !Arc::ptr_eq(place, &self.place));
        self.bar.finish_and_clear();
    }
}

impl Bar {
    /// A bar nobody sees, for tests.
    #[cfg(test)]
    pub(crate) fn hidden() -> Self {
        Self::stopped_by(Arc::default())
    }

    /// A bar nobody sees, that a test can stop.
    #[cfg(test)]
    pub(crate) fn stopped_by(stop: Arc<AtomicBool>) -> Self {
        Self {
            bar: ProgressBar::hidden(),
            bars: MultiProgress::new(),
            stop,
            place: Arc::default(),
            at_work: Arc::default(),
        }
    }

    /// The work is `total` steps of this many images each, of which `done` are done.
    pub(crate) fn start(&self, total: u64, done: u64, images: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.reset_eta();
        self.place.done.store(done, Ordering::Relaxed);
        self.place.images.store(images, Ordering::Relaxed);
        let mut said = locked(&self.place.said);
        (said.total, said.begun) = (total, Some((done, Instant::now())));
    }

    /// Some steps are done.
    pub(crate) fn advance(&self, steps: u64, note: impl Fn() -> String) {
        self.bar.inc(steps);
        self.place.done.fetch_add(steps, Ordering::Relaxed);
        self.note(note);
    }

    /// How many steps are done in all.
    pub(crate) fn reach(&self, done: u64) {
        self.bar.set_position(done);
        self.place.done.store(done, Ordering::Relaxed);
    }

    /// What the cell is at.
    pub(crate) fn note(&self, note: impl Fn() -> String) {
        if !self.bar.is_hidden() {
            self.bar.set_prefix(note());
        }
        let mut said = locked(&self.place.said);
        // Steps may be many; nobody reads so fast.
        if said.noted.is_none_or(|noted| noted.elapsed() >= PAUSE / 4) {
            (said.note, said.noted) = (note(), Some(Instant::now()));
        }
    }

    /// Prints a line above the bars.
    pub(crate) fn say(&self, line: &str) {
        self.bars.suspend(|| say(line));
    }

    /// Whether a signal asked for an end.
    pub(crate) fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_says_how_far_its_cells_are_as_long_as_it_works() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("it.progress");
        let progress = Progress::new(1, Arc::default());
        let bar = progress.cell("train", "digits-mart-s0");
        bar.start(10, 2, 50);
        std::thread::sleep(Duration::from_millis(10));
        bar.advance(4, || "epoch 3".into());
        let place = file.clone();
        let publisher = progress.publish(move || place.clone()).unwrap();
        let begun = Instant::now();
        let said = loop {
            assert!(begun.elapsed() < Duration::from_secs(30));
            match read(&file) {
                Some(said) => break said,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let [cell] = &said.cells[..] else { panic!("{said:?}") };
        assert_eq!((&cell.name[..], &cell.note[..]), ("digits-mart-s0", "epoch 3"));
        assert_eq!((cell.done, cell.total), (6, 10));
        // Four steps of 50 images, then as many steps are left.
        let seconds = 4.0 * 50.0 / cell.images_per_second.unwrap();
        assert!((cell.seconds_left.unwrap() - seconds).abs() < 0.1 * seconds);
        drop(bar);
        assert!(progress.at_work.lock().unwrap().is_empty());
        drop(publisher);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
