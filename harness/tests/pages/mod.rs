//! What the tests of pages are made of.

pub mod blocks;
pub mod links;
pub mod snippets;
pub mod tables;

use std::path::{Path, PathBuf};

/// Every Markdown file below a folder of the repository, by its path in there, sorted.
pub fn markdown_below(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.join(folder)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            found.extend(markdown_below(root, &path));
        } else if path.extension().is_some_and(|it| it == "md") {
            found.push(path);
        }
    }
    found.sort();
    found
}
