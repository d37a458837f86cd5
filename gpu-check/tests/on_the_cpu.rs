//! The program with the CPU on both sides: every check runs to its end and finds nothing.

use assert_cmd::Command;
use serde_json::Value;

fn gpu_check(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("gpu-check").unwrap();
    command.args(arguments);
    command
}

/// By the script that a machine with a GPU runs, so that the script is tried as well.
#[test]
fn the_cpu_is_like_itself() {
    let folder = tempfile::tempdir().unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let built = std::path::Path::new(env!("CARGO_BIN_EXE_gpu-check"));
    let out = std::process::Command::new("bash")
        .arg(root.join("tools/gpu-check.sh"))
        .args(["--device", "cpu", "--quick", "--part", "checks", "--out"])
        .arg(folder.path())
        .env("BUILT", built.parent().unwrap())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{shown}{}", String::from_utf8_lossy(&out.stderr));
    assert!(folder.path().join("gpu-check.tar.gz").exists(), "{shown}");
    let found: Value = serde_json::from_slice(&std::fs::read(folder.path().join("checks.json")).unwrap()).unwrap();
    assert_eq!(found["passed"], true, "{shown}");
    let rows = found["rows"].as_array().unwrap();
    for group in ["operations", "networks", "methods", "repeatable", "memory", "speed"] {
        assert!(rows.iter().any(|row| row["group"] == group), "{group}: {shown}");
    }
    // Operation by operation it is the same computation twice.
    for row in rows.iter().filter(|row| row["group"] == "operations") {
        assert!(row["deviation"] == 0.0 || row.get("skipped").is_some(), "{row}");
    }
    // The authors' numbers are no copy of ours.
    let authors = rows
        .iter()
        .filter(|row| row["name"].as_str().unwrap().contains("authors'"));
    assert!(
        authors.filter(|row| row.get("deviation").is_some()).count() >= 10,
        "{shown}"
    );
    // The table comes last, and after it where the rest lies.
    let mut last = shown.lines().rev().filter(|line| !line.is_empty());
    assert!(last.next().unwrap().contains("s in all"), "{shown}");
    assert!(last.next().unwrap().contains(" 0 failed"), "{shown}");
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    for (device, part) in [("gpu", "known: cpu, cuda:N"), ("cuda:0", "CUDA")] {
        if device == "cuda:0" && kernels::device::open(0).is_ok() {
            continue;
        }
        let out = gpu_check(&["--device", device]).output().unwrap();
        assert_eq!(out.status.code(), Some(2));
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains(part), "{said}");
    }
}
