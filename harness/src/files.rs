//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Component, Path};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a file under a temporary name in the same folder, forces it to disk and renames it.
pub(crate) fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    let folder = file.parent().context("a file without a folder")?;
    let wrote = || -> std::io::Result<()> {
        let mut builder = tempfile::Builder::new();
        // Readable by whom the user lets read, as any other file; a temporary file is private.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut temporary = builder.tempfile_in(folder)?;
        temporary.write_all(bytes)?;
        temporary.as_file().sync_all()?;
        temporary.persist(file)?;
        // The rename itself must survive a power cut.
        File::open(folder)?.sync_all()
    };
    wrote().with_context(|| {
        format!(
            "cannot write {}; is the disk full or the folder read-only?",
            file.display()
        )
    })
}

/// Writes plain data as indented JSON.
pub(crate) fn write_json(file: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write(file, text.as_bytes())
}

/// Reads JSON; `None` if there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let value = serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged; delete it and run again to make it anew", file.display()))?;
    Ok(Some(value))
}

/// Whether a name out of a file is that of something in a folder: it leads neither up nor anywhere else.
pub(crate) fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let only = parts.next().filter(|_| parts.next().is_none());
    // A trailing separator or `./` is no part, so the part must be the whole name.
    matches!(only, Some(Component::Normal(part)) if part == name) && !name.contains(['\\', '\0'])
}

/// Makes a folder and its parents.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| {
        format!(
            "cannot make the folder {}; choose another place with --out",
            folder.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_leads_nowhere_else() {
        for name in ["best.safetensors", "0a1b-natural", "...", "a b"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["", ".", "..", "../a", "a/b", "a/", "./a", "/etc/passwd", "a\\b", "a\0"] {
            assert!(!is_plain(name), "{name:?}");
        }
    }
}
