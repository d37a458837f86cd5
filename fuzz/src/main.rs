//! `fuzz [TARGET] [COUNT]`: runs COUNT inputs on one target or on all, from number `--from N` on.
//!
//! Prints one line for each target. A failing input is kept under `fuzz/failures/TARGET`, one file for each place
//! of a panic; move it to `fuzz/corpus/TARGET` once it is fixed, and every test run tries it again.
//! `--show N` writes input N to stdout. Exit code 1 if anything failed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fuzz::{Input, Target, Verdict, targets};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The current input, for the watchdog.
static AT: AtomicU64 = AtomicU64::new(0);
/// A reader that computes for longer than this hangs …
const HANG: Duration = Duration::from_secs(20);
/// … and so does one that waits for longer than this, even on a busy machine.
const SLEEP: Duration = Duration::from_secs(900);

thread_local! {
    /// Where the last panic was.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The outcomes of a target's inputs.
#[derive(Default)]
struct Tally {
    refused: u64,
    accepted: u64,
    /// Places of panics, reasons of wrong acceptances, and inputs that took too much memory.
    failures: BTreeSet<String>,
    failed: u64,
    /// Panics of libraries that a reader caught, by place.
    caught: BTreeMap<String, u64>,
    /// The most memory taken beyond the target's constant, for each byte of the file.
    per_byte: f64,
    /// The most memory taken by one input.
    most: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(at + 1)?.parse::<u64>().expect("a number"))
    };
    let mut plain = arguments.clone();
    for name in ["--from", "--show"] {
        if let Some(at) = plain.iter().position(|argument| argument == name) {
            plain.drain(at..(at + 2).min(plain.len()));
        }
    }
    let count: u64 = plain
        .iter()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(10_000);
    let wanted: Vec<&String> = plain
        .iter()
        .filter(|argument| argument.parse::<u64>().is_err())
        .collect();
    let mut chosen = targets();
    for name in &wanted {
        if !chosen.iter().any(|target| target.name == **name) {
            let names: Vec<&str> = chosen.iter().map(|target| target.name).collect();
            eprintln!("error: no target is called `{name}`; there are {}", names.join(", "));
            return ExitCode::from(2);
        }
    }
    chosen.retain(|target| wanted.is_empty() || wanted.iter().any(|name| target.name == **name));
    if let Some(index) = option("--show") {
        let out = std::io::stdout().write_all(&chosen[0].input(index).bytes);
        return ExitCode::from(u8::from(out.is_err()));
    }
    std::panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map_or_else(String::new, |place| format!("{}:{}", place.file(), place.line()));
        PANIC.set(place);
    }));
    std::thread::spawn(watch);
    let from = option("--from").unwrap_or(0);
    let mut failed = 0;
    for target in &chosen {
        failed += run(target, from, count).failed;
    }
    ExitCode::from(u8::from(failed > 0))
}

/// Ends the program if one input takes too long.
fn watch() {
    let (mut at, mut since, mut busy) = (u64::MAX, Instant::now(), processor_time());
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = AT.load(Ordering::SeqCst);
        if now != at {
            (at, since, busy) = (now, Instant::now(), processor_time());
        } else if processor_time().saturating_sub(busy) > HANG || since.elapsed() > SLEEP {
            say(&format!("input {at} hangs; see it with --show {at}"));
            std::process::exit(1);
        }
    }
}

/// How long the main thread has computed, as Linux counts it: other programs must not make an input look slow.
fn processor_time() -> Duration {
    let file = format!("/proc/self/task/{}/schedstat", std::process::id());
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

fn run(target: &Target, from: u64, count: u64) -> Tally {
    let mut tally = Tally::default();
    let begin = processor_time();
    // Only an abort leaves this file: then the number in it is that of the input at fault.
    let trace = std::env::temp_dir().join(format!("rampart-fuzz-{}-{}", target.name, std::process::id()));
    let mut file = std::fs::File::create(&trace).ok();
    for index in from..from + count {
        let input = target.input(index);
        AT.store(index, Ordering::SeqCst);
        if let Some(file) = &mut file {
            let _ = std::io::Seek::rewind(file);
            let _ = file.write_all(format!("{index:<20}").as_bytes());
        }
        one(target, index, &input, &mut tally);
    }
    drop(file);
    let _ = std::fs::remove_file(&trace);
    let seconds = (processor_time() - begin).as_secs_f64();
    say(&format!(
        "{:<15} {count:>8} inputs  {:>8} accepted  {:>8} refused  {:>4} failed  {:>8.0} /s  most {:>6} KiB, {:>6.1} per byte",
        target.name,
        tally.accepted,
        tally.refused,
        tally.failed,
        count as f64 / seconds,
        tally.most >> 10,
        tally.per_byte,
    ));
    for failure in &tally.failures {
        say(&format!("  {failure}"));
    }
    for (place, count) in &tally.caught {
        say(&format!(
            "  {count} panics of a library's were caught by its reader, at {place}"
        ));
    }
    tally
}

fn one(target: &Target, index: u64, input: &Input, tally: &mut Tally) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    PANIC.take();
    let verdict = catch_unwind(AssertUnwindSafe(|| target.check(input)));
    let taken = MEMORY.peak_usage().saturating_sub(before);
    tally.most = tally.most.max(taken);
    let beyond = taken.saturating_sub(target.constant) as f64;
    tally.per_byte = tally.per_byte.max(beyond / input.bytes.len().max(1) as f64);
    let place = PANIC.take();
    if verdict.is_ok() && !place.is_empty() {
        *tally.caught.entry(place.clone()).or_default() += 1;
    }
    let failure = match verdict {
        Err(_) => format!("panic at {place}"),
        Ok(Verdict::Wrong(problem)) => format!("wrong: {problem}"),
        Ok(_) if taken > target.allowance(input.bytes.len()) => {
            format!(
                "memory: {} KiB for a power of two of bytes near {}",
                taken >> 10,
                input.bytes.len().next_power_of_two()
            )
        }
        Ok(Verdict::Accepted) => {
            tally.accepted += 1;
            return;
        }
        Ok(Verdict::Refused) => {
            tally.refused += 1;
            return;
        }
    };
    tally.failed += 1;
    if tally.failures.len() < 20 && tally.failures.insert(failure.clone()) {
        match keep(target, index, &input.bytes) {
            Ok(file) => say(&format!(
                "{}: input {index}: {failure}; kept as {}",
                target.name,
                file.display()
            )),
            Err(error) => say(&format!("{}: input {index}: {failure}; not kept: {error}", target.name)),
        }
    }
}

fn keep(target: &Target, index: u64, bytes: &[u8]) -> std::io::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("failures").join(target.name);
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(index.to_string());
    std::fs::write(&file, bytes)?;
    Ok(file)
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
