//! The scripts that run on a machine with a GPU, with stand-ins for what only that machine has.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn tool(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("tools").join(name)
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    (status.code(), said)
}

/// Runs tools/gpu-train.sh with a program that writes down how it was called and then does `what`.
fn train(what: &str, arguments: &[&str]) -> (Option<i32>, String, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("rampart");
    let calls = folder.path().join("calls");
    let text = format!("#!/bin/sh\necho \"$@\" >> {}\n{what}", calls.display());
    // Written by a process of its own: a file that this one holds open, if only in a fork, could not be run.
    let write = "printf '%s\\n' \"$1\" > \"$2\" && chmod +x \"$2\"";
    let (status, said) = run(Command::new("sh").args(["-c", write, "sh", &text]).arg(&program));
    assert_eq!(status, Some(0), "{said}");
    let mut command = Command::new("bash");
    command
        .arg(tool("gpu-train.sh"))
        .args(arguments)
        .env("BUILT", folder.path());
    command.arg("--out").arg(folder.path().join("runs"));
    // Programs of a checkout come after those of BUILT.
    command.args(["--", "--precision", "bf16"]);
    let (status, said) = run(&mut command);
    let calls = std::fs::read_to_string(calls).unwrap_or_default();
    (status, said, calls.lines().map(String::from).collect())
}

#[test]
fn a_training_goes_from_defense_to_defense() {
    let (status, said, calls) = train("exit 0", &["--data", "data"]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(calls.len(), 3, "{calls:?}");
    for (call, defense) in calls.iter().zip(["mart", "standard", "trades"]) {
        let parts = [
            "cifar10-resnet18.yaml",
            "--data-dir data",
            &format!("--filter defense={defense}"),
            "--precision bf16",
        ];
        assert!(parts.iter().all(|part| call.contains(part)), "{call}");
    }
}

#[test]
fn a_training_that_is_interrupted_or_fails_stops_there() {
    let (status, said, calls) = train("exit 130", &["--data", "data"]);
    assert_eq!((status, calls.len()), (Some(130), 1), "{said}");
    assert!(said.contains("run the same command again to resume"), "{said}");
    let (status, said, calls) = train("exit 3", &["--data", "data"]);
    assert_eq!((status, calls.len()), (Some(3), 1), "{said}");
    let (status, said, calls) = train("exit 0", &["--data", "data", "--minutes", "0"]);
    assert_eq!((status, calls.len()), (Some(130), 0), "{said}");
    let (status, said, _) = train("exit 0", &["--minutes", "soon", "--data", "data"]);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("gpu-train.sh --data DIR"), "{said}");
}

#[test]
fn parts_come_together_again_and_a_lost_one_is_named() {
    if Command::new("xz").arg("--version").output().is_err() {
        eprintln!("no xz here: gpu-parts.sh is not tried");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir_all(data.join("inner")).unwrap();
    // Numbers that do not shrink, for more than one part.
    let random = random::Stream::new(1).uniform(&[0], 700_000);
    let bytes: Vec<u8> = random
        .iter()
        .flat_map(|u| ((u * 16_777_216.0) as u32).to_le_bytes())
        .collect();
    std::fs::write(data.join("inner/file"), &bytes).unwrap();
    let (parts, into) = (folder.path().join("parts"), folder.path().join("into"));
    let split = run(Command::new("bash")
        .arg(tool("gpu-parts.sh"))
        .arg("split")
        .args([&data, &parts])
        .arg("1"));
    assert_eq!(split.0, Some(0), "{}", split.1);
    let join = || {
        run(Command::new("bash")
            .arg(tool("gpu-parts.sh"))
            .arg("join")
            .args([&parts, &into]))
    };
    assert_eq!(join().0, Some(0));
    assert_eq!(std::fs::read(into.join("data/inner/file")).unwrap(), bytes);
    let second = parts.join("data.tar.xz.001");
    std::fs::remove_file(&second).unwrap();
    let (status, said) = join();
    assert!(status != Some(0) && said.contains("data.tar.xz.001"), "{said}");
}
