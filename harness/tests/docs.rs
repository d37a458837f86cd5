//! What the pages show is what is there: files as they are, output as the program prints it.
//!
//! `<!-- file: PATH -->` stands before a block with that file, `<!-- run: harness ARGUMENTS -->` before one with what the
//! command prints. `UPDATE_DOCS=1 cargo test -p harness --test docs` writes the blocks anew.

use std::path::{Path, PathBuf};

use assert_cmd::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
        .map(|name| root().join(name))
        .into();
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    pages
}

/// The text of a block, if `line` asks for one.
fn wanted(line: &str) -> Option<String> {
    let inner = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
    if let Some(path) = inner.strip_prefix("file: ") {
        let text = std::fs::read_to_string(root().join(path));
        return Some(text.unwrap_or_else(|error| panic!("{path}: {error}")));
    }
    let arguments = inner.strip_prefix("run: harness ")?;
    let mut command = Command::cargo_bin("harness").unwrap();
    let output = command.current_dir(root()).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{line}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    Some(lines.join("\n") + "\n")
}

/// The page with every block as it should be.
fn fresh(page: &str) -> (String, usize) {
    let (mut out, mut blocks) = (String::new(), 0);
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        out += line;
        out += "\n";
        let Some(text) = wanted(line) else { continue };
        blocks += 1;
        let fence = lines.find(|it| !it.is_empty()).unwrap_or_default();
        assert!(fence.starts_with("```"), "a block must follow `{line}`");
        out += &format!("\n{fence}\n{text}```\n");
        lines.by_ref().find(|it| *it == "```").expect("the end of the block");
    }
    (out, blocks)
}

#[test]
fn pages_show_what_is_there() {
    let mut blocks = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let (fresh, found) = fresh(&text);
        blocks += found;
        if fresh != text {
            if std::env::var_os("UPDATE_DOCS").is_some() {
                std::fs::write(&page, fresh).unwrap();
                continue;
            }
            let difference = text.lines().zip(fresh.lines()).find(|(a, b)| a != b);
            panic!(
                "{} is stale: {difference:?}; write it anew by UPDATE_DOCS=1 cargo test -p harness --test docs",
                page.display()
            );
        }
    }
    assert!(blocks > 0, "no page has a block that could be checked");
}

/// Every command that the program lists has its help on the page of commands.
#[test]
fn no_command_lacks_its_help() {
    let output = Command::cargo_bin("harness").unwrap().arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = listed
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 15 && commands.contains(&"watch"), "{commands:?}");
    let page = std::fs::read_to_string(root().join("docs/commands.md")).unwrap();
    for command in commands {
        assert!(
            page.contains(&format!("<!-- run: harness help {command} -->")),
            "docs/commands.md says nothing of `harness {command}`"
        );
    }
}
