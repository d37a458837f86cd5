//! What builds releases and containers agrees with the program that it builds.

use std::path::PathBuf;

fn read(file: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", file].iter().collect();
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn releases_are_built_by_the_workflow_that_pages_describe() {
    let text = read(".github/workflows/release.yml");
    let workflow: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let build = &workflow["jobs"]["build"];
    let platforms = build["strategy"]["matrix"]["include"].as_sequence().unwrap().iter();
    let platforms: Vec<&str> = platforms.map(|entry| entry["platform"].as_str().unwrap()).collect();
    assert_eq!(
        platforms,
        ["linux-x86_64", "linux-arm64", "macos-arm64", "macos-x86_64"]
    );
    let install = read("docs/install.md");
    assert!(
        platforms
            .iter()
            .all(|platform| install.contains(&format!("`{platform}`"))),
        "{install}"
    );
    assert!(read("docs/ci.md").contains("rampart-linux-x86_64.tar.gz.sha256"));
    for file in [
        "matrices/ci.yaml",
        "matrices/ci.baseline.csv",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "matrix.yaml",
    ] {
        assert!(text.contains(file.split('/').next_back().unwrap()), "{file}");
        read(file);
    }
    assert!(
        text.contains("target/release/rampart compare"),
        "no program is published without the gate"
    );
}

#[test]
fn everything_is_built_with_the_rust_of_the_workspace() {
    let manifest = read("Cargo.toml");
    let version = manifest
        .split_once("rust-version = \"")
        .unwrap()
        .1
        .split_once('"')
        .unwrap()
        .0;
    assert!(read("Dockerfile").contains(&format!("FROM rust:{version}-")));
    assert!(read(".github/workflows/release.yml").contains(&format!("rustup toolchain install {version} ")));
    let program = assert_cmd::cargo::cargo_bin!("rampart");
    let name = program.file_stem().unwrap().to_str().unwrap();
    assert!(read("Dockerfile").contains(&format!("/source/target/release/{name} /usr/local/bin/{name}")));
}
