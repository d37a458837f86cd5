//! Links between pages.

use std::path::{Component, Path, PathBuf};

/// Where the links of a page lead, but for those into the web. Code is no text.
pub fn of(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        // What stands between back quotes is code too.
        let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for piece in outside.split("](").skip(1) {
            let target = piece.split(')').next().unwrap_or_default();
            if !target.contains("://") {
                found.push(target.to_string());
            }
        }
    }
    found
}

/// The file that a link of a page leads to, by its path in the repository.
pub fn target(page: &Path, link: &str) -> Option<PathBuf> {
    let file = link.split('#').next().unwrap_or_default();
    if file.is_empty() {
        return Some(page.to_path_buf());
    }
    let mut path = page.parent()?.to_path_buf();
    for part in Path::new(file).components() {
        match part {
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    Some(path)
}

/// Why a link of a page leads nowhere, if it does.
pub fn broken(root: &Path, page: &Path, link: &str) -> Option<String> {
    let Some(target) = target(page, link) else {
        return Some("outside the repository".into());
    };
    let file = root.join(&target);
    if !file.exists() {
        return Some("no such file".into());
    }
    let (_, anchor) = link.split_once('#')?;
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let has = text.lines().any(|line| line.starts_with('#') && slug(line) == anchor);
    (!has).then(|| "no such heading".into())
}

/// A heading's anchor, as GitHub makes it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it));
    kept.map(|it| if it == ' ' { '-' } else { it }).collect()
}
