//! Every mistake a user can make: exit code, place and remedy.

mod common;

use common::{Place, SMALL};

/// A mistake in the matrix: exit code 2, an error with all these parts, and nothing written.
#[track_caller]
fn mistake(matrix: &str, parts: &[&str]) {
    assert_ne!(matrix, SMALL, "the mistake was not made");
    let place = Place::new(matrix);
    for command in ["validate", "run", "plan"] {
        let (_, err) = place.expect(2, &[command, "m.yaml"]);
        for part in parts {
            assert!(err.contains(part), "{command}: `{part}` is not in:\n{err}");
        }
    }
    assert!(!place.path("runs").exists(), "a mistaken matrix left something behind");
}

#[test]
fn an_unknown_key_is_placed_and_a_known_one_suggested() {
    mistake(
        &SMALL.replace("networks:", "netwroks:"),
        &["m.yaml:4:1", "`netwroks`", "did you mean `networks`?"],
    );
    mistake(
        &SMALL.replace("steps: 3", "stpes: 3"),
        &["m.yaml:11:", "`attacks[1].stpes`", "did you mean `steps`?"],
    );
    mistake(
        &SMALL.replace("rate: 0.05", "rte: 0.05"),
        &["m.yaml:5:", "rte", "did you mean `rate`?"],
    );
    mistake(
        &SMALL.replace("source: {", "source: { sed: 1,"),
        &["m.yaml:13:", "sed", "did you mean `seed`?"],
    );
}

#[test]
fn a_misspelt_name_is_placed_and_a_known_one_suggested() {
    mistake(
        &SMALL.replace("standard", "standrad"),
        &["m.yaml:8:", "no defense `standrad`", "did you mean `standard`?"],
    );
    mistake(
        &SMALL.replace("name: pgd", "name: pdg"),
        &["m.yaml:11:", "no attack `pdg`", "did you mean `pgd`?"],
    );
    mistake(
        &SMALL.replace("name: digits", "name: digit"),
        &["m.yaml:2:", "`digit`", "did you mean `digits`?"],
    );
    mistake(
        &SMALL.replace("[tiny-cnn]", "[tiny-cn]"),
        &["m.yaml:4:", "`tiny-cn`", "did you mean `tiny-cnn`?"],
    );
    mistake(
        &SMALL.replace("[white-box,", "[whitebox,"),
        &["m.yaml:15:", "whitebox", "did you mean `white-box`?"],
    );
}

#[test]
fn impossible_values_are_refused() {
    mistake(
        &SMALL.replace("epsilon: 0.1", "epsilon: 8"),
        &["m.yaml:3:", "`threat.epsilon`", "8/255"],
    );
    mistake(
        &SMALL.replace("epsilon: 0.1", "epsilon: -0.1"),
        &["m.yaml:3:", "`threat.epsilon`"],
    );
    mistake(
        &SMALL.replace("epsilon: 0.1", "epsilon: 1/0"),
        &["m.yaml:3:", "divides by zero"],
    );
    mistake(
        &SMALL.replace("steps: 3", "steps: 0"),
        &["m.yaml:11:", "`attacks[1].steps`"],
    );
    mistake(
        &SMALL.replace("steps: 2", "steps: 0"),
        &["m.yaml:8:", "`defenses[1].attack.steps`"],
    );
    mistake(&SMALL.replace("rate: 0.05", "rate: -1"), &["m.yaml:5:", "rate"]);
    mistake(&SMALL.replace("epochs: 2", "epochs: 0"), &["m.yaml:5:", "epochs"]);
    mistake(&SMALL.replace("batch: 32", "batch: 0"), &["m.yaml:5:", "batch"]);
    mistake(
        &SMALL.replace("validation: 20, ", ""),
        &["`checkpoints`", "validation: 1000"],
    );
}

#[test]
fn a_last_batch_of_one_image_without_variance_is_refused() {
    let limit = |train: usize| format!("limit: {{ train: {train}, test: 40 }}");
    // 97 examples in batches of 32; ResNet-18 is left with one pixel of an 8×8 digit.
    let left = SMALL
        .replace("[tiny-cnn]", "[resnet18]")
        .replace(&limit(120), &limit(117));
    mistake(
        &left,
        &[
            "m.yaml:5:22",
            "97 training examples in batches of 32 leave one image",
            "`resnet18`",
            "`validation: 21`",
        ],
    );
    mistake(
        &left.replace("batch: 32", "batch: 1"),
        &["every batch has one image", "write 2 or more"],
    );
    // With the batch of the defense's own recipe, at its place.
    let own = left
        .replace(&limit(117), &limit(120))
        .replace("- natural", "- { name: natural, recipe: { batch: 33 } }");
    mistake(
        &own,
        &["`defenses[0].recipe.batch`", "100 training examples in batches of 33"],
    );
    for fine in [
        left.replace("resnet18", "tiny-cnn"),
        left.replace(&limit(117), &limit(118)),
        left.replace("epochs: 2", "steps: 3"),
    ] {
        Place::new(&fine).expect(0, &["validate", "m.yaml"]);
    }
    let fourth = left.replace("epochs: 2", "steps: 4");
    mistake(&fourth, &["leave one image for the last batch"]);
}

#[test]
fn empty_lists_are_refused() {
    mistake(
        &SMALL.replace("[tiny-cnn]", "[]"),
        &["m.yaml:4:", "`networks`: an empty list"],
    );
    mistake(
        &format!("{SMALL}seeds: []\n"),
        &["m.yaml:16:", "`seeds`: an empty list"],
    );
    mistake(
        &SMALL.replace("  attacks: [fgsm]", "  attacks: []"),
        &["m.yaml:14:", "an empty list"],
    );
}

#[test]
fn twice_the_same_is_refused() {
    mistake(
        &format!("{SMALL}seeds: [1, 1]\n"),
        &["m.yaml:16:", "`seeds[1]`", "1 is listed twice"],
    );
    mistake(
        &SMALL.replace(
            "  - natural\n",
            "  - natural\n  - { name: natural, recipe: { batch: 8 } }\n",
        ),
        &["label"],
    );
    mistake(
        &SMALL.replace("  - fgsm\n", "  - fgsm\n  - { name: fgsm, start: uniform }\n"),
        &["FGSM", "label"],
    );
    mistake(
        &format!("{SMALL}name: again\n"),
        &["m.yaml:16:1", "`name` is here a second time"],
    );
    mistake(
        &SMALL.replace("  - natural\n", "  - natural\n  - { name: natural, label: Again }\n"),
        &["m.yaml:8:", "`defenses[1]`", "the same defense as `defenses[0]`"],
    );
    mistake(
        &SMALL.replace("  - fgsm\n", "  - fgsm\n  - { name: fgsm, label: Again }\n"),
        &["`Again` is the same attack as `FGSM`"],
    );
    mistake(
        &SMALL.replace("[tiny-cnn]", "[tiny-cnn, tiny-cnn]"),
        &["m.yaml:4:", "`networks[1]`", "tiny-cnn is listed twice"],
    );
    // The same training twice, each time judged on other images: a table has one place for both.
    let blocks = "blocks:\n  - { attacks: [fgsm] }\n  - { attacks: [{ name: fgsm, start: uniform }] }\n";
    mistake(&format!("{SMALL}{blocks}"), &["`FGSM`", "label", "limit"]);
    mistake(
        &SMALL.replace("steps: 3,", "steps: 3, limit: 0,"),
        &["attacks[1].limit", "nothing would run"],
    );
}

/// One round of corrections is enough.
#[test]
fn all_mistakes_come_at_once() {
    let matrix = SMALL
        .replace("validation: 20, ", "")
        .replace("epochs: 2", "epochs: one")
        .replace("rate: 0.05", "rate: fast")
        .replace("name: pgd", "name: pdg")
        .replace("steps: 2", "stpes: 2");
    mistake(
        &matrix,
        &[
            "m.yaml:5:",
            "`recipe.epochs`: expected a whole number from 0 up, found the text \"one\"",
            "`recipe.optimizer.rate`: expected a number, found the text \"fast\"",
            "`defenses[1].attack.stpes`: unknown field `stpes`",
            "`attacks[1].name`: there is no attack `pdg`",
            "`checkpoints`: choosing the best checkpoint takes held-out examples",
        ],
    );
}

/// YAML has numbers that JSON lacks; as null they would mean the default.
#[test]
fn numbers_that_are_not_finite_are_refused() {
    for number in [".nan", ".inf", "-.inf"] {
        mistake(
            &SMALL.replace("rate: 0.05", &format!("rate: {number}")),
            &["m.yaml:5:", "not a finite number"],
        );
    }
}

/// How editors on other systems save a file makes no difference.
#[test]
fn bytes_before_and_between_lines_do_not_matter() {
    let place = Place::new(SMALL);
    let (plain, _) = place.expect(0, &["validate", "m.yaml"]);
    for text in [
        format!("\u{feff}{SMALL}"),
        format!("\u{feff}---\r\n{}", SMALL.replace('\n', "\r\n")),
        format!("x-anchors: {{ a: &a 1 }}\n{SMALL}"),
    ] {
        std::fs::write(place.path("m.yaml"), text).unwrap();
        let (out, _) = place.expect(0, &["validate", "m.yaml"]);
        assert_eq!(out, plain);
    }
    for (bytes, part) in [
        (&b"\xff\xfen\0"[..], "UTF-16"),
        (&b"name: small\nlabel: \xfc\n"[..], "line 2 is not text in UTF-8"),
    ] {
        std::fs::write(place.path("m.yaml"), bytes).unwrap();
        let (_, err) = place.expect(2, &["validate", "m.yaml"]);
        assert!(err.contains(part), "{err}");
    }
}

/// What Python prints for 0.8/255 has more digits than a quarter of it has in 64 bits.
#[test]
fn a_radius_of_many_digits_is_a_radius() {
    let matrix = SMALL
        .replace("epsilon: 0.1", "epsilon: 0.0031372549019607846")
        .replace("steps: 2", "steps: 2, step_size: 0.001")
        .replace("step_size: 0.05", "step_size: 0.001");
    Place::new(&matrix).expect(0, &["validate", "m.yaml"]);
}

/// No command-line option can make the machine unreachable.
#[test]
fn threads_and_jobs_are_bounded() {
    let place = Place::new(SMALL);
    for (option, number) in [
        ("--threads", "0"),
        ("--threads", "5000"),
        ("--jobs", "0"),
        ("--jobs", "100000"),
    ] {
        let (_, err) = place.expect(2, &["m.yaml", option, number]);
        assert!(err.contains(option), "{err}");
    }
    assert!(!place.path("runs").exists(), "something was left behind");
    // An endless device is not a matrix.
    #[cfg(unix)]
    place.expect(2, &["validate", "/dev/urandom"]);
}

#[test]
fn surroundings_without_meaning_are_refused() {
    let place = Place::new(SMALL);
    let output = place
        .harness(&["m.yaml"])
        .env("RAMPART_INSTRUCTIONS", "sse9")
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("`sse9`") && err.contains("`avx2`"), "{err}");
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"runs\xff");
        let output = place.harness(&["m.yaml", "--out"]).arg(name).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains("not text in UTF-8"), "{err}");
    }
    assert!(!place.path("runs").exists(), "something was left behind");
}

#[test]
fn what_is_not_a_matrix_is_refused() {
    mistake("", &["m.yaml"]);
    mistake("[1, 2", &["m.yaml:"]);
    mistake("name: x\n", &["missing field `dataset`"]);
    mistake(
        &SMALL.replace("name: small", "name: ../evil"),
        &["m.yaml:1:1", "`name`"],
    );
    let place = Place::new(SMALL);
    let (_, err) = place.expect(2, &["nowhere.yaml"]);
    assert!(err.contains("nowhere.yaml"), "{err}");
}

#[test]
fn command_line_mistakes_are_refused() {
    let place = Place::new(SMALL);
    let check = |arguments: &[&str], code: i32, part: &str| {
        let (_, err) = place.expect(code, arguments);
        assert!(err.contains(part), "{arguments:?}: {err}");
    };
    check(&["m.yaml", "--jobs", "0"], 2, "--jobs");
    check(&["m.yaml", "--device", "cuda:0"], 2, "without CUDA");
    check(&["m.yaml", "--device", "tpu"], 2, "known: auto, cpu");
    check(&["m.yaml", "--set", "seeds"], 2, "path=value");
    check(&["m.yaml", "--set", "recipe.epohcs=1"], 2, "did you mean `epochs`?");
    check(&["m.yaml", "--filter", "defnse=mart"], 2, "did you mean `defense`?");
    check(&["m.yaml", "--filter", "defense=mart"], 4, "no cell");
    check(&["m.yaml", "--limit", "0"], 2, "--limit");
    check(&["m.yaml", "--frobnicate"], 2, "--frobnicate");
    check(&["fetch", "cifar11"], 2, "did you mean `cifar10`?");
    check(&["tables", "nowhere"], 2, "nowhere");
}

#[test]
fn missing_data_says_how_to_get_it() {
    let place = Place::new(&SMALL.replace("name: digits", "name: mnist"));
    place.expect(0, &["validate", "m.yaml"]);
    let (_, err) = place.expect(2, &["m.yaml"]);
    assert!(err.contains("rampart fetch mnist"), "{err}");
}

#[test]
fn an_unwritable_folder_is_named() {
    let place = Place::new(SMALL);
    std::fs::write(place.path("file"), "").unwrap();
    let (_, err) = place.expect(2, &["m.yaml", "--out", "file/in"]);
    assert!(err.contains("file/in") && err.contains("--out"), "{err}");
}
