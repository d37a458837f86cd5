//! Blocks of a page that are made from something else.

use std::path::{Path, PathBuf};

use super::{markdown_below, tables};

/// A block as it should be.
enum Block {
    /// Between fences.
    Fenced(String),
    /// Markdown, up to `<!-- end -->`.
    Open(String),
}

const END: &str = "<!-- end -->";

/// The page with every block as it should be, and how many there are. `harness` runs the program.
pub fn fresh(root: &Path, page: &Path, text: &str, harness: &dyn Fn(&str) -> String) -> (String, usize) {
    let (mut out, mut blocks) = (String::new(), 0);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out += line;
        out += "\n";
        let Some(block) = wanted(root, page, line, harness) else {
            continue;
        };
        blocks += 1;
        match block {
            Block::Fenced(text) => {
                let fence = lines.find(|it| !it.is_empty()).unwrap_or_default();
                assert!(
                    fence.starts_with("```"),
                    "{}: a block must follow `{line}`",
                    page.display()
                );
                out += &format!("\n{fence}\n{text}```\n");
                lines.by_ref().find(|it| *it == "```").expect("the end of the block");
            }
            Block::Open(text) => {
                let end = lines.by_ref().find(|it| *it == END);
                assert!(end.is_some(), "{}: `{line}` has no {END}", page.display());
                out += &format!("\n{text}\n{END}\n");
            }
        }
    }
    (out, blocks)
}

/// The block that `line` asks for, if it asks for one.
fn wanted(root: &Path, page: &Path, line: &str, harness: &dyn Fn(&str) -> String) -> Option<Block> {
    let inner = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
    let (kind, rest) = inner.split_once(": ")?;
    let picked = |pick: &dyn Fn(&Path, &[tables::Part], &str) -> tables::Picked| {
        let (folder, label) = rest.split_once(' ').expect("a folder and a label");
        Block::Open(taken(root, page, Path::new(folder), &|file, parts| {
            pick(file, parts, label)
        }))
    };
    match kind {
        "file" => {
            let text = std::fs::read_to_string(root.join(rest));
            Some(Block::Fenced(text.unwrap_or_else(|error| panic!("{rest}: {error}"))))
        }
        "run" => {
            let output = harness(rest.strip_prefix("rampart ").expect("a command of rampart"));
            let lines: Vec<&str> = output.trim_end().lines().map(str::trim_end).collect();
            Some(Block::Fenced(lines.join("\n") + "\n"))
        }
        "rows" => Some(picked(&|_, parts, label| tables::rows(parts, label))),
        "columns" => Some(picked(&|file, parts, label| match is_miniature(file) {
            true => Vec::new(),
            false => tables::columns(parts, label),
        })),
        "published" => Some(Block::Open(tables::published(root, rest))),
        _ => None,
    }
}

/// Whether a table is of a miniature of another matrix, which compares variants of defenses and says nothing of an attack.
fn is_miniature(table: &Path) -> bool {
    table.iter().any(|part| part.to_string_lossy().ends_with("-digits"))
}

/// What is picked out of every table of a folder, each under its heading with a link to the whole.
fn taken(root: &Path, page: &Path, folder: &Path, pick: &dyn Fn(&Path, &[tables::Part]) -> tables::Picked) -> String {
    let mut text = String::new();
    for file in markdown_below(root, folder) {
        if !file.iter().any(|part| part == "tables") {
            continue;
        }
        let parts = tables::read(&std::fs::read_to_string(root.join(&file)).unwrap());
        for (heading, grid) in pick(&file, &parts) {
            if !text.is_empty() {
                text.push('\n');
            }
            let link = relative(page, &file);
            text += &format!(
                "{heading} ([whole table]({}))\n\n{}",
                link.display(),
                tables::show(&grid)
            );
        }
    }
    assert!(
        !text.is_empty(),
        "{}: nothing to show in {}",
        page.display(),
        folder.display()
    );
    text
}

/// The way from a page to a file, both by their paths in the repository.
fn relative(page: &Path, file: &Path) -> PathBuf {
    let up = page.iter().count() - 1;
    let from: Vec<_> = page.iter().take(up).collect();
    let to: Vec<_> = file.iter().collect();
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let ups = from[shared..].iter().map(|_| "..".as_ref());
    ups.chain(to[shared..].iter().copied()).collect()
}
