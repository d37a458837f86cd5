//! The program with the CPU on both sides: every check runs to its end and finds nothing.

use assert_cmd::Command;
use serde_json::Value;

fn gpu_check(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("gpu-check").unwrap();
    command.args(arguments);
    command
}

#[test]
fn the_cpu_is_like_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("found.json");
    let out = gpu_check(&["--device", "cpu", "--quick", "--json", file.to_str().unwrap()])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{shown}{}", String::from_utf8_lossy(&out.stderr));
    let found: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
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
    assert!(shown.lines().last().unwrap().contains(" 0 failed"), "{shown}");
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
