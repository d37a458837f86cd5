//! What this build was made from, for the manifests of runs.

use std::path::Path;
use std::process::Command;

fn main() {
    let set =
        |name: &str, value: Option<String>| println!("cargo::rustc-env=RAMPART_{name}={}", value.unwrap_or_default());
    set("COMMIT", git(&["rev-parse", "HEAD"]));
    let changes = git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!*.md"]);
    set("DIRTY", changes.map(|it| (!it.is_empty()).to_string()));
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    set("RUSTC", output(Command::new(rustc).arg("--version")));
    for name in ["TARGET", "PROFILE", "OPT_LEVEL"] {
        set(name, std::env::var(name).ok());
    }
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    set("RUSTFLAGS", Some(flags.replace('\u{1f}', " ")));

    // Whatever is compiled, and the commit.
    let crates = std::fs::read_dir("..").expect("the repository's root");
    for folder in crates
        .flatten()
        .map(|it| it.path())
        .filter(|it| it.join("Cargo.toml").exists())
    {
        println!("cargo::rerun-if-changed={}", folder.join("src").display());
        println!("cargo::rerun-if-changed={}", folder.join("Cargo.toml").display());
    }
    println!("cargo::rerun-if-changed=../Cargo.lock");
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["HEAD", "logs/HEAD"] {
        let file = git(&["rev-parse", "--path-format=absolute", "--git-path", name]);
        if let Some(file) = file.filter(|it| Path::new(it).exists()) {
            println!("cargo::rerun-if-changed={file}");
        }
    }
}

/// What git says of the repository's root, if there is one.
fn git(arguments: &[&str]) -> Option<String> {
    output(Command::new("git").arg("-C").arg("..").args(arguments))
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|it| it.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}
