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
