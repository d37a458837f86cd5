//! A small matrix and the program to run it, as a user would.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};

use assert_cmd::Command;

/// Trains two networks on 100 digits for one epoch.
pub const SMALL: &str = "\
name: small
dataset: { name: digits, validation: 20, limit: { train: 120, test: 40 } }
threat: { norm: linf, epsilon: 0.1 }
networks: [tiny-cnn]
recipe: { epochs: 2, batch: 32, optimizer: { name: sgd, rate: 0.05 }, schedule: { name: constant } }
defenses:
  - natural
  - { name: standard, attack: { steps: 2 } }
attacks:
  - fgsm
  - { name: pgd, steps: 3, step_size: 0.05 }
transfer:
  source: { defense: natural }
  attacks: [fgsm]
tables: [white-box, black-box]
";

/// Labels for 40 of 100 digits; a teacher gives the others theirs.
pub const UNLABELED: &str = "\
name: small
dataset: { name: digits, validation: 20, labeled: 40, limit: { train: 120, test: 40 } }
threat: { norm: linf, epsilon: 0.1 }
networks: [tiny-cnn]
recipe: { epochs: 2, batch: 32, optimizer: { name: sgd, rate: 0.05 }, schedule: { name: constant } }
teacher: { defense: natural }
unlabeled: { weight: 0.5, share: 0.5 }
defenses:
  - { name: trades, attack: { steps: 2 } }
  - { name: mart, attack: { steps: 2 }, teacher: none }
tables: [unlabeled]
";

/// A folder with a matrix and, later, its runs.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new(matrix: &str) -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(place.path("m.yaml"), matrix).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program in this folder, with no data but what it brings.
    pub fn harness(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("rampart").unwrap();
        command.current_dir(self.folder.path()).args(arguments);
        command
            .env("RAMPART_DATA_DIR", self.path("data"))
            .env_remove("RUST_LOG");
        command
    }

    /// Runs the program; returns exit code, stdout and stderr.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.harness(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap_or(-1),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// Runs the program; fails unless it ends with this code.
    #[track_caller]
    pub fn expect(&self, code: i32, arguments: &[&str]) -> (String, String) {
        let (actual, out, err) = self.run(arguments);
        assert_eq!(actual, code, "{arguments:?}\nstdout:\n{out}\nstderr:\n{err}");
        (out, err)
    }

    /// Folders of the cells whose names contain `part`.
    pub fn cells(&self, run: &str, part: &str) -> Vec<PathBuf> {
        let listing = std::fs::read_dir(self.path("runs").join(run).join("cells")).unwrap();
        let mut folders: Vec<_> = listing.map(|entry| entry.unwrap().path()).collect();
        folders.retain(|folder| folder.file_name().unwrap().to_string_lossy().contains(part));
        folders.sort();
        folders
    }
}

pub fn bytes(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The paths of all files under a folder.
pub fn everything(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_string());
            }
        }
    }
    found.sort();
    found
}

/// The digests of a run's results, tables and networks: of all that must not depend on how it was computed.
pub fn derived(run: &Path) -> Vec<(String, String)> {
    let kept = |name: &String| {
        let timed = name.ends_with("timings.parquet")
            || name.ends_with("timings.json")
            || name.ends_with("status.json")
            || name == "manifest.json";
        !timed && !name.starts_with("invocations/") && name != ".lock"
    };
    let digest = |name: String| {
        let hash = blake3::hash(&bytes(&run.join(&name))).to_hex().to_string();
        (name, hash)
    };
    everything(run).into_iter().filter(kept).map(digest).collect()
}
