//! The worker's protocol, as `peers/compare.py` speaks it.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn worker(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rampart-worker"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A worker that has refused its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn every_line_is_answered_and_the_end_of_input_ends_it() {
    let out = worker(
        &["train-step", "small-cnn", "2", "cpu", "fp32"],
        "check\nrun 0\nrun 0.05\n",
    );
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [ready, check, once, often] = &lines[..] else {
        panic!("four lines, not {text}");
    };
    assert_eq!(ready["ready"], true);
    assert!(ready["threads"].as_u64().unwrap() > 0);
    assert_eq!(check["logits"].as_array().unwrap().len(), 20);
    assert_eq!(once["images"], 2);
    assert!(often["seconds"].as_f64().unwrap() >= 0.05, "{often}");
    for answer in [once, often] {
        let (most, before) = (&answer["high_water_mib"], &answer["resident_before_mib"]);
        let peak = most.as_f64().zip(before.as_f64()).map(|(most, before)| most - before);
        assert_eq!(answer["peak_mib"].as_f64(), peak);
    }
}

#[test]
fn mistakes_are_named() {
    let check = |arguments: &[&str], input: &str, expected: &str| {
        let out = worker(arguments, input);
        let error = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{error}");
        assert!(error.contains(expected), "{error}");
    };
    check(&["train-step"], "", "usage: rampart-worker");
    check(
        &["evaluate", "no-file", "tiny-cnn", "no-file", "linf:0.1"],
        "",
        "examples `no-file`",
    );
    check(&["step", "small-cnn", "2", "cpu", "fp32"], "", "`step`; known: forward");
    check(&["forward", "cnn", "2", "cpu", "fp32"], "", "`cnn`; known: small-cnn");
    check(&["forward", "small-cnn", "no", "cpu", "fp32"], "", "not `no`");
    check(&["forward", "small-cnn", "0", "cpu", "fp32"], "", "a batch of 0 images");
    check(&["forward", "small-cnn", "2", "cuda:0", "fp32"], "", "device cuda:0: ");
    check(&["forward", "small-cnn", "2", "cpu", "bf16"], "", "`bf16`; known: fp32");
    check(
        &["forward", "small-cnn", "2", "cpu", "fp32"],
        "stop\n",
        "`stop` is not understood",
    );
    check(
        &["forward", "small-cnn", "2", "cpu", "fp32"],
        "run fast\n",
        "`fast` is not a time",
    );
}
