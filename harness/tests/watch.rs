//! `rampart watch`, manual pages and completions.

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Place, SMALL, everything};

#[test]
fn a_finished_run_is_shown_once_and_watching_it_ends() {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml"]);
    for arguments in [&["watch", "runs/small", "--once"][..], &["watch", "m.yaml"]] {
        let (out, _) = place.expect(0, arguments);
        assert!(out.contains("11 of 11 cells (100 %), 0 at work, 0 left"), "{out}");
        assert!(out.contains("% interval") || out.contains("trained"), "{out}");
        assert_eq!(out.matches("done ").count(), 5, "{out}");
        assert!(!out.contains('\u{1b}') && !out.contains('\r'), "{out:?}");
    }
    place.expect(2, &["watch", "runs/nothing", "--once"]);
    place.expect(2, &["watch", "runs/small", "--every", "0"]);
}

#[test]
fn what_failed_is_shown_with_its_reason() {
    let place = Place::new(&SMALL.replace("rate: 0.05", "rate: 1.0e30"));
    place.expect(3, &["m.yaml"]);
    let (out, _) = place.expect(3, &["watch", "runs/small"]);
    assert!(
        out.contains("11 failed") && out.contains("diverge") && out.contains("more failed"),
        "{out}"
    );
}

/// From another process, while the run is at work: which epoch a training is in, and how fast it is.
#[test]
#[cfg(unix)]
fn a_run_at_work_says_how_far_its_cells_are() {
    let long = SMALL
        .replace("epochs: 2", "epochs: 100000")
        .replace("validation: 20", "validation: 0")
        .replace("tables:", "checkpoints: [last]\ntables:");
    let place = Place::new(&long);
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("rampart"));
    command.args(["m.yaml", "--jobs", "1"]).current_dir(place.path(""));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let out = loop {
        let (code, out, err) = place.run(&["watch", "runs/small", "--once"]);
        if code == 0 && out.contains("images/s") {
            break out;
        }
        if begun.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("{out}{err}");
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        out.contains("1 at work") && out.contains("natural-s0: epoch ") && out.contains(" loss "),
        "{out}"
    );
    assert!(out.contains(&format!("process {}", child.id())), "{out}");
    // What a killed process said is not believed.
    let (out, _) = place.expect(0, &["watch", "runs/small", "--once"]);
    assert!(out.contains("0 at work") && out.contains("nobody is at work"), "{out}");
    assert!(!out.contains("images/s"), "{out}");
}

#[test]
fn nothing_is_left_of_what_processes_said() {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml"]);
    let left: Vec<String> = everything(&place.path("runs/small"))
        .into_iter()
        .filter(|it| it.ends_with(".progress"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn shells_and_man_know_every_command() {
    let place = Place::new(SMALL);
    let (help, _) = place.expect(0, &["--help"]);
    for shell in ["bash", "zsh", "fish"] {
        let (script, _) = place.expect(0, &["completions", shell]);
        for word in ["rampart", "verify-examples", "checkpoint-every", "watch"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let (out, _) = place.expect(0, &["man", "pages"]);
    assert_eq!(
        out.lines().count(),
        std::fs::read_dir(place.path("pages")).unwrap().count()
    );
    for command in ["run", "watch", "submit"] {
        assert!(
            help.contains(command) && out.contains(&format!("rampart-{command}.1")),
            "{out}"
        );
    }
    let page = std::fs::read_to_string(place.path("pages/rampart-run.1")).unwrap();
    assert!(page.contains(".SH SYNOPSIS") && page.contains("fail\\-fast"), "{page}");
}
