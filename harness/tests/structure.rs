//! The structure that ARCHITECTURE.md promises: dependencies between files run one way, files and functions stay short,
//! and every folder says in one sentence what it is for.

mod modules;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use modules::{Crate, SourceFile};

/// Files with more lines than this, not counting tests, should be split.
const LONGEST_FILE: usize = 450;
/// Functions with more lines than this should be split.
const LONGEST_FUNCTION: usize = 90;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_path_buf()
}

/// Every crate of the workspace, read once.
fn crates() -> Vec<Crate> {
    let root = workspace();
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let members = manifest
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .expect("a list of members")
        .0;
    let names = members.split('"').skip(1).step_by(2);
    let crates: Vec<Crate> = names.map(|name| Crate::read(&root.join(name))).collect();
    assert!(crates.len() > 10, "the workspace was found");
    crates
}

/// No file uses a file that uses it, directly or through others.
#[test]
fn files_do_not_depend_on_each_other_in_circles() {
    let mut circles = Vec::new();
    let mut edges = 0;
    for member in crates() {
        let graph = member.dependencies();
        edges += graph.values().map(BTreeMap::len).sum::<usize>();
        for circle in modules::circles(&graph) {
            let mut lines = vec![format!("{}: {} files use each other", member.name, circle.len())];
            for file in &circle {
                for (to, names) in &graph[file] {
                    if circle.contains(to) {
                        lines.push(format!("  {file} uses {} of {to}", names.join(", ")));
                    }
                }
            }
            circles.push(lines.join("\n"));
        }
    }
    assert!(edges > 300, "the reader finds imports: {edges}");
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

/// The layers of the program, from the top: a folder may use its own files and those of later layers. The lowest has
/// the files beside `lib.rs`.
const FLOORS: [&[&str]; 5] = [
    &["cli"],
    &["audit"],
    &["publish", "schedule", "catalogue"],
    &["compute"],
    &[""],
];
/// Files that assemble the program and belong to no layer.
const ABOVE: [&str; 4] = ["lib.rs", "main.rs", "program.rs", "fuzzing.rs"];

fn folder_of(file: &str) -> &str {
    file.split_once('/').map_or("", |(folder, _)| folder)
}

/// No file in a lower layer of the harness imports from a higher one.
#[test]
fn the_floors_of_the_harness_are_in_order() {
    let harness = Crate::read(&workspace().join("harness"));
    let floor = |file: &str| {
        let folder = folder_of(file);
        let floor = FLOORS.iter().position(|names| names.contains(&folder));
        assert!(floor.is_some(), "{file} is on no floor");
        floor.filter(|_| !ABOVE.contains(&file))
    };
    let mut upward = Vec::new();
    let mut seen = 0;
    for (from, uses) in harness.dependencies() {
        for (to, names) in uses {
            let (Some(from_floor), Some(to_floor)) = (floor(&from), floor(&to)) else {
                continue;
            };
            seen += 1;
            let aside = from_floor == to_floor && folder_of(&from) != folder_of(&to);
            if to_floor < from_floor || aside {
                upward.push(format!("{from} uses {} of {to}", names.join(", ")));
            }
        }
    }
    assert!(seen > 50, "the floors were found: {seen}");
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

/// Everything about plans is in one crate.
#[test]
fn plans_have_no_methods_elsewhere() {
    let users = ["storage", "harness", "fuzz"];
    for member in crates().iter().filter(|member| users.contains(&&*member.name)) {
        for file in &member.files {
            assert!(!file.has_impl_of("Plan"), "{}/src/{}", member.name, file.path);
        }
    }
}

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    for member in crates() {
        for file in &member.files {
            let SourceFile { path, lines, .. } = file;
            if *lines > LONGEST_FILE {
                long.push(format!("{}/src/{path}: {lines} lines without tests", member.name));
            }
            for (name, lines) in &file.functions {
                // The training loop may be long, as long as it can be read from top to bottom.
                let is_loop = member.name == "harness" && name == "train";
                if *lines > LONGEST_FUNCTION && !is_loop {
                    long.push(format!("{}/src/{path}: `{name}` has {lines} lines", member.name));
                }
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// The first sentence of a folder's module is its line in ARCHITECTURE.md.
#[test]
fn the_map_has_every_folder() {
    let map = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let mut missing = Vec::new();
    for member in crates() {
        for file in &member.files {
            let Some(folder) = file.folder() else { continue };
            let place = match folder {
                "" => member.name.clone(),
                folder => format!("{}/src/{folder}", member.name),
            };
            let sentence = file.header.trim();
            let line = format!("| `{place}` | {} |", sentence.trim_end_matches('.'));
            if !sentence.ends_with('.') || sentence.contains(". ") {
                missing.push(format!("{place}: not one sentence: {sentence}"));
            } else if !folder.is_empty() && !map.contains(&line) {
                missing.push(line);
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
