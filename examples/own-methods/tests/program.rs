//! Runs the example's program as a user would.

use assert_cmd::Command;

fn program(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("own-methods")
        .unwrap()
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn own_methods_are_trained_attacked_and_typeset() {
    let out = tempfile::tempdir().unwrap();
    let at = out.path().to_str().unwrap();
    let matrix = concat!(env!("CARGO_MANIFEST_DIR"), "/matrix.yaml");
    let run = ["run", matrix, "--out", at, "--set", "recipe.epochs=2", "--limit", "200"];
    let (code, table, error) = program(&run);
    assert_eq!(code, 0, "{error}");
    for expected in ["quadratic", "tiny-cnn", "Mixed", "Corners"] {
        assert!(table.contains(expected), "{expected}\n{table}");
    }
    let (code, _, again) = program(&run);
    assert_eq!(code, 0, "{again}");
}

#[test]
fn own_methods_are_listed_and_their_mistakes_named() {
    for (kind, name) in [("defenses", "mixed"), ("attacks", "corners"), ("models", "quadratic")] {
        let (code, list, _) = program(&["ls", kind]);
        assert!(code == 0 && list.contains(name), "{list}");
    }
    let (_, schema, _) = program(&["schema"]);
    serde_json::from_str::<serde_json::Value>(&schema).unwrap();
    assert!(schema.contains("mixed") && schema.contains("tries"));
    let matrix = concat!(env!("CARGO_MANIFEST_DIR"), "/matrix.yaml");
    let (code, _, error) = program(&["validate", matrix, "--set", "defenses[1].alpha=2"]);
    assert_eq!(code, 2);
    assert!(error.contains("alpha is 2; it must lie in [0, 1]"), "{error}");
}

/// A crate outside of this repository needs the workspace's profile, or its loops are not optimised.
#[test]
fn the_outside_crate_has_the_profile_of_this_repository() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(here.join(file)).unwrap();
    let (outside, workspace) = (read("outside.toml"), read("../../Cargo.toml"));
    let mut hot = 0;
    for section in workspace.split("[profile.dev.package.").skip(1) {
        let (name, settings) = section.split_once(']').unwrap();
        if settings.lines().any(|line| line == "opt-level = 3") {
            hot += 1;
            assert!(outside.contains(&format!("\n{name} = {{ opt-level = 3")), "{name}");
        }
    }
    assert!(hot > 20, "{hot}");
    // Members of the workspace have its profile without a line of their own.
    for name in ["attacks", "datasets", "defenses", "models", "random"] {
        assert!(outside.contains(&format!("\n{name} = {{ opt-level = 3")), "{name}");
    }
    for line in workspace.lines() {
        let shared = ["candle-core", "schemars", "serde"];
        let mut shared = shared.iter().filter(|name| line.starts_with(&format!("{name} = ")));
        if shared.next().is_some() {
            assert!(outside.contains(line), "{line}");
        }
    }
}
