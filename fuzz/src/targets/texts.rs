//! The JSON files of a run's folder.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Mutex;

use harness::fuzzing::{self, Methods};
use serde_json::{Value, json};

use crate::Rng;
use crate::damage;
use crate::target::{Demand, Input, Target, Verdict};

pub(super) fn targets() -> Vec<Target> {
    vec![status(), lease(), process(), rows(), tables(), record()]
}

/// JSON with damaged text or meaning.
fn break_json(rng: &mut Rng, seeds: &[Vec<u8>]) -> Input {
    let mut bytes = seeds[rng.below(seeds.len())].clone();
    let words: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"\"../../x\"",
        b"\"/etc/passwd\"",
        b"1e999",
        b"-1",
        b"\\ud800",
        b"[[[[[[[[[[[[[[[[",
    ];
    if rng.one_in(2) {
        let mut tree: Value = serde_json::from_slice(&bytes).expect("a seed");
        damage::value(rng, &mut tree);
        bytes = tree.to_string().into_bytes();
    } else {
        damage::bytes(rng, &mut bytes, &seeds[0], words);
    }
    Input {
        bytes,
        demand: Demand::None,
    }
}

/// A folder for one file at a time.
struct Folder(Mutex<tempfile::TempDir>);

impl Folder {
    fn new() -> Self {
        // In memory if possible: writing a million small files would wear out a disk.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        Self(Mutex::new(folder.expect("a temporary folder")))
    }

    fn with<T>(&self, file: &str, bytes: &[u8], use_it: impl FnOnce(&Path) -> T) -> T {
        let folder = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::fs::write(folder.path().join(file), bytes).expect("a temporary file");
        use_it(folder.path())
    }
}

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// `status.json` of a cell.
fn status() -> Target {
    let folder = Folder::new();
    folder.with("rows.json", b"abc", |at| fuzzing::finish(at, KEY, &["rows.json"]));
    let seed = folder.with("rows.json", b"abc", |at| {
        fuzzing::unsealed(&std::fs::read(at.join("status.json")).expect("a status"))
    });
    Target {
        name: "status",
        seeds: vec![seed],
        per_byte: 100,
        constant: 1 << 15,
        damage: Box::new(break_json),
        check: Box::new(move |input, _| {
            let done = folder.with("status.json", &fuzzing::sealed(&input.bytes), |at| {
                fuzzing::status(at, KEY)
            });
            if !done {
                return Verdict::Refused;
            }
            let status: Value = match serde_json::from_slice(&input.bytes) {
                Ok(status) => status,
                Err(error) => {
                    return Verdict::Wrong(format!(
                        "a finished cell was read from something that is not JSON: {error}"
                    ));
                }
            };
            let files = status["files"].as_object();
            let whole = files.is_some_and(|files| {
                files
                    .iter()
                    .all(|(name, mark)| name == "rows.json" && mark["bytes"] == 3)
            });
            if whole && status["key"] == KEY && status["failed"].is_null() {
                Verdict::Accepted
            } else {
                Verdict::Wrong("a cell that is not finished counts as finished".into())
            }
        }),
    }
}

/// A folder for one file at a time, which contains the given subfolder.
fn folder_with(name: &str) -> Folder {
    let folder = Folder::new();
    folder.with("nothing", b"", |at| {
        std::fs::create_dir(at.join(name)).expect("a temporary folder");
    });
    folder
}

/// Whether a text consists of exactly this many hexadecimal digits.
fn are_digits(text: &str, count: usize) -> bool {
    text.len() == count && text.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase())
}

/// A lease on a cell, in `claims`.
fn lease() -> Target {
    let folder = folder_with("claims");
    let seed = json!({
        "by": "00112233445566aa", "host": "node-7", "process": 4321, "since": 1_700_000_000,
        "work": "0123456789ab-digits-tiny-cnn-mart-s0.ffeeddccbbaa9988",
    });
    Target {
        name: "lease",
        seeds: vec![seed.to_string().into_bytes()],
        per_byte: 100,
        constant: 1 << 15,
        damage: Box::new(break_json),
        check: Box::new(move |input, _| {
            let read = folder.with(&format!("claims/{KEY}.1"), &input.bytes, |at| {
                let paths = fuzzing::lease(at, KEY)?;
                let inside = |path: &Path| path.strip_prefix(at).map(Path::to_path_buf).ok();
                Some(paths.iter().map(|path| inside(path)).collect::<Vec<_>>())
            });
            let Some(paths) = read else { return Verdict::Refused };
            for path in paths {
                let plain = path.as_ref().is_some_and(|path| {
                    let parts: Vec<Component<'_>> = path.components().collect();
                    parts.len() == 2 && parts.iter().all(|part| matches!(part, Component::Normal(_)))
                });
                if !plain {
                    return Verdict::Wrong(format!("it leads to {path:?}"));
                }
            }
            let lease: Value = match serde_json::from_slice(&input.bytes) {
                Ok(lease) => lease,
                Err(error) => return Verdict::Wrong(format!("what is no JSON is a lease: {error}")),
            };
            let (cell, token) = lease["work"]
                .as_str()
                .and_then(|work| work.split_once('.'))
                .unwrap_or_default();
            let of_this_cell = cell.starts_with(&KEY[..12]) && !cell.contains(['/', '\\', '\0']);
            let by_token = lease["by"].as_str().is_some_and(|by| are_digits(by, 16));
            if of_this_cell && are_digits(token, 16) && by_token {
                Verdict::Accepted
            } else {
                Verdict::Wrong("a lease names a folder that is not the cell's".into())
            }
        }),
    }
}

/// What a process reports about itself, in `processes`.
fn process() -> Target {
    const TOKEN: &str = "00112233445566aa";
    let folder = folder_with("processes");
    let seed = json!({
        "host": "node-7", "machine": "node-7 0a1b", "process": 4321, "since": 1_700_000_000, "plan": "0a1b",
        "alone": false, "locked": true, "stale_after": 120.0,
    });
    Target {
        name: "process",
        seeds: vec![seed.to_string().into_bytes()],
        per_byte: 100,
        constant: 1 << 15,
        damage: Box::new(break_json),
        check: Box::new(move |input, _| {
            let file = format!("processes/{TOKEN}.json");
            match folder.with(&file, &input.bytes, |at| fuzzing::process(at, TOKEN)) {
                None => Verdict::Refused,
                Some(seconds) if std::time::Duration::try_from_secs_f64(seconds).is_err() => {
                    Verdict::Wrong(format!("{seconds} is a span of time"))
                }
                Some(_) if serde_json::from_slice::<Value>(&input.bytes).is_err() => {
                    Verdict::Wrong("what is no JSON is a process".into())
                }
                Some(_) => Verdict::Accepted,
            }
        }),
    }
}

/// `rows.json` of a cell.
fn rows() -> Target {
    let folder = Folder::new();
    let row = results::Row {
        epsilon_value: Some(8.0 / 255.0),
        flags: Some("few-steps".into()),
        ..results::Row::default().with_count(10, 7)
    };
    let seed = folder.with("rows.json", b"", |at| {
        results::write_cell(at, &[row.clone(), row.with_failure("diverged")], &[], &[]).expect("a small file");
        fuzzing::unsealed(&std::fs::read(at.join(results::ROWS_FILE)).expect("rows"))
    });
    Target {
        name: "rows",
        seeds: vec![seed],
        per_byte: 100,
        constant: 1 << 15,
        damage: Box::new(break_json),
        check: Box::new(|input, _| {
            let Ok(rows) = results::parse_rows(fuzzing::sealed(&input.bytes)) else {
                return Verdict::Refused;
            };
            let stored: Value = match serde_json::from_slice(&input.bytes) {
                Ok(stored) => stored,
                Err(error) => {
                    return Verdict::Wrong(format!("rows were read from something that is not JSON: {error}"));
                }
            };
            let listed = stored["rows"].as_array().map_or(&[][..], Vec::as_slice);
            let same = listed.iter().zip(&rows).all(|(stored, row)| {
                (stored["cell"].as_str(), stored["n_correct"].as_u64()) == (Some(&row.cell), row.n_correct)
            });
            if same && listed.len() == rows.len() {
                Verdict::Accepted
            } else {
                Verdict::Wrong("a row differs from its file".into())
            }
        }),
    }
}

/// `tables.json` of a run.
fn tables() -> Target {
    let folder = Folder::new();
    let text = super::matrices::tree().to_string();
    let seed = folder.with("m.yaml", text.as_bytes(), |at| {
        fuzzing::write_tables(&text, &Methods::builtin(), at).expect("a matrix");
        fuzzing::unsealed(&std::fs::read(at.join("tables.json")).expect("a spec"))
    });
    // A small one as well, quicker and with more of its bytes in the right places.
    let mut small: Value = serde_json::from_slice(&seed).expect("JSON");
    for (_, list) in small.as_object_mut().expect("an object") {
        if let Some(list) = list.as_array_mut() {
            list.truncate(2);
        }
    }
    Target {
        name: "tables",
        seeds: vec![small.to_string().into_bytes()],
        per_byte: 100,
        constant: 1 << 15,
        damage: Box::new(break_json),
        check: Box::new(move |input, _| {
            let named = folder.with("tables.json", &fuzzing::sealed(&input.bytes), fuzzing::tables);
            let Ok(named) = named else { return Verdict::Refused };
            for file in named {
                let parts: Vec<Component<'_>> = file.components().collect();
                if parts.len() != 2 || !parts.iter().all(|part| matches!(part, Component::Normal(_))) {
                    return Verdict::Wrong(format!("it leads to {}", file.display()));
                }
            }
            Verdict::Accepted
        }),
    }
}

/// The record beside unpacked data.
fn record() -> Target {
    let files: BTreeMap<&str, &str> = [("test.bin", "ba7816bf8f01cfea"), ("train.bin", "414140de5dae2223")].into();
    let seed =
        json!({ "archive": "cifar-100-binary.tar.gz", "md5": "03b5dce01913d631647c71ecec9e9cb8", "files": files });
    Target {
        name: "record",
        seeds: vec![seed.to_string().into_bytes()],
        per_byte: 60,
        constant: 1 << 14,
        damage: Box::new(break_json),
        check: Box::new(|input, _| {
            if !datasets::formats::record(&input.bytes) {
                return Verdict::Refused;
            }
            let stored = serde_json::from_slice::<Value>(&input.bytes).unwrap_or_default();
            let files = stored["files"].as_object();
            if files.is_some_and(|files| files.values().all(Value::is_string)) {
                Verdict::Accepted
            } else {
                Verdict::Wrong("a record without files".into())
            }
        }),
    }
}
