//! The real program, killed again and again, ends at the same bits.
//!
//! `tools/kill-test 200` kills it oftener.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, SMALL, derived, everything};

/// Batch statistics, a memory of every example, an average of the weights, a transfer, an evaluation in several pieces.
fn matrix() -> String {
    SMALL
        .replace("epochs: 2", "epochs: 3")
        .replace(
            "- { name: standard, attack: { steps: 2 } }",
            "- { name: mma, steps: 3, recipe: { awp: { warmup: 1 }, averaging: { decay: 0.9, start: 1 } } }",
        )
        .replace("tables:", "checkpoints: [best, last]\ntables:")
}

const ARGUMENTS: [&str; 5] = ["m.yaml", "--checkpoint-every", "0", "--evaluation-batch", "15"];

/// Evenly spread draws in [0, 1): where they lie matters, not how they are made.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn start(place: &Place, fault: Option<String>) -> Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rampart"));
    command.args(ARGUMENTS).current_dir(place.path(""));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(fault) = fault {
        command.env("RAMPART_FAULT", fault);
    }
    command.spawn().unwrap()
}

/// What the program was at when it died, as far as its folder shows.
fn moment(run: &Path) -> &'static str {
    let files = everything(run);
    let any = |part: &str| files.iter().any(|it| it.contains(part));
    let unfinished = |it: &&String| {
        let folder = it.rsplit_once('/').map_or("", |it| it.0);
        it.starts_with("cells/") && !files.contains(&format!("{folder}/status.json"))
    };
    let cells = || files.iter().filter(unfinished);
    let evaluation = |it: &str| it.contains("-best-") || it.contains("-last-");
    match () {
        () if files
            .iter()
            .any(|it| it.starts_with("cells/") && it.ends_with(".partial")) =>
        {
            "writing a cell's file"
        }
        () if any(".partial") => "writing results, tables or the manifest",
        () if any("selecting.safetensors") => "choosing a checkpoint",
        () if cells().any(|it| it.contains("resume") && evaluation(it)) => "evaluating",
        () if cells().any(|it| it.contains("resume")) => "training",
        () if cells().count() > 0 => "finishing a cell",
        () if any("per_example.parquet") => "between tables",
        () => "between cells or starting",
    }
}

#[test]
fn killed_anywhere_it_ends_at_the_same_bits() {
    let kills: usize = std::env::var("RAMPART_KILLS").map_or(10, |it| it.parse().expect("a number of kills"));
    let matrix = matrix();
    let whole = Place::new(&matrix);
    let clock = Instant::now();
    whole.expect(0, &ARGUMENTS);
    let time = clock.elapsed();
    let expected = derived(&whole.path("runs/small"));

    let mut draws = Draws(2020);
    let mut moments: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut killed, mut resumed) = (0, 0);
    while killed < kills {
        let place = Place::new(&matrix);
        let run = place.path("runs/small");
        // A run dies a few times before it may end.
        for _ in 0..5 {
            if killed == kills {
                break;
            }
            // In turn: by a signal after some time, and by itself at some step of writing some file.
            let by_signal = draws.next() < 0.5;
            let fault = (!by_signal).then(|| format!("kill@{}", 1 + (draws.next() * 600.0) as u64));
            let mut child = start(&place, fault);
            if by_signal {
                let deadline = Instant::now() + time.mul_f64(draws.next() * 0.8);
                while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                child.kill().unwrap();
            }
            let status = child.wait().unwrap();
            if status.code() == Some(0) {
                break;
            }
            assert_eq!(status.code(), None, "neither finished nor killed");
            killed += 1;
            if run.exists() {
                *moments.entry(moment(&run)).or_default() += 1;
            } else {
                *moments.entry("between cells or starting").or_default() += 1;
            }
        }
        place.expect(0, &ARGUMENTS);
        assert_eq!(derived(&run), expected, "after {killed} kills");
        place.expect(0, &["check", "runs/small"]);
        resumed += 1;
    }
    eprintln!("{killed} kills in {resumed} runs, each of which ended at the same bits:");
    for (moment, count) in moments {
        eprintln!("{count:>6} while {moment}");
    }
}
