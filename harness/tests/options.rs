//! What a recipe can add to any defense, and lists in a defense's fields, as a user meets them.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use common::{Place, SMALL};

/// The small matrix with one defense, trained so.
fn with(entry: &str) -> String {
    SMALL
        .replace("- natural\n", "")
        .replace("- { name: standard, attack: { steps: 2 } }", entry)
        .replace("tables: [white-box, black-box]", "checkpoints: [best, last]")
}

/// The folder of the only training that is attacked.
fn training(place: &Place) -> PathBuf {
    let cells = place.cells("small", "-s0");
    let found = cells.into_iter().find(|it| it.join("last.safetensors").exists());
    found.expect("a training")
}

/// The numbers of its last checkpoint.
fn last(place: &Place) -> BTreeMap<String, Vec<f32>> {
    numbers(&training(place).join("last.safetensors"))
}

fn numbers(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let flat = |it: &Tensor| it.flatten_all().unwrap().to_vec1().unwrap();
    tensors.iter().map(|(name, it)| (name.clone(), flat(it))).collect()
}

fn trained(entry: &str) -> Place {
    let place = Place::new(&with(entry));
    place.expect(0, &["m.yaml"]);
    place
}

/// The average is what is kept: an average with no memory is the network itself, one with memory is not, and neither
/// changes what is trained.
#[test]
fn an_average_is_judged_and_kept_and_changes_no_training() {
    let recipe = |recipe: &str| format!("- {{ name: standard, attack: {{ steps: 2 }}, recipe: {{ {recipe} }} }}");
    let plain = trained("- { name: standard, attack: { steps: 2 } }");
    let expected = last(&plain);
    let none = trained(&recipe("averaging: { decay: 0 }"));
    assert_eq!(last(&none), expected);
    let late = trained(&recipe("averaging: { decay: 0.9, start: 2 }"));
    assert_eq!(last(&late), expected);
    let some = trained(&recipe("averaging: { decay: 0.9 }"));
    let average = last(&some);
    assert!(
        expected
            .iter()
            .all(|(name, numbers)| (*numbers == average[name]) == name.ends_with("num_batches_tracked"))
    );
    // The loss is that of the network in training, which nothing has touched.
    let losses = |place: &Place| {
        let text = std::fs::read_to_string(training(place).join("history.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
        lines.into_iter().map(|it| it["loss"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(losses(&plain), losses(&some));
    // A row says how its network was trained, and what reads rows finds them in order.
    let rows = results::read_rows(&some.path("runs/small/results.parquet")).unwrap();
    let row = rows.iter().find(|row| row.defense_name == "standard").unwrap();
    assert_eq!(
        (row.defense.as_str(), row.recipe.as_str()),
        ("Standard-EMA", "shared, changed, EMA")
    );
    some.expect(0, &["check", "runs/small"]);
}

#[test]
fn weights_are_perturbed_after_the_warmup_and_it_is_counted() {
    let recipe = |warmup: u64| {
        format!("- {{ name: trades, attack: {{ steps: 2 }}, recipe: {{ awp: {{ gamma: 0.01, warmup: {warmup} }} }} }}")
    };
    let plain = trained("- { name: trades, attack: { steps: 2 } }");
    let expected = last(&plain);
    let never = trained(&recipe(2));
    assert_eq!(last(&never), expected);
    let second = trained(&recipe(1));
    let moved = last(&second);
    assert!(moved["model.conv1.weight"] != expected["model.conv1.weight"]);
    // Batch norm saw one evaluation of each step.
    assert_eq!(
        moved["model.bn1.num_batches_tracked"],
        expected["model.bn1.num_batches_tracked"]
    );

    let passes = |place: &Place| {
        let (out, _) = place.expect(0, &["plan", "m.yaml", "--json"]);
        let cells: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
        let training =
            |it: &&serde_json::Value| it["kind"] == "train" && it["name"].as_str().unwrap().contains("trades");
        let cell = cells.iter().find(training).unwrap();
        (cell["forwards"].as_u64().unwrap(), cell["backwards"].as_u64().unwrap())
    };
    // 100 images, TRADES with 3 passes in training mode and one back, in one epoch of two or in both.
    let (forwards, backwards) = passes(&plain);
    assert_eq!(passes(&second), (forwards + 300, backwards + 100));
    assert_eq!(
        passes(&Place::new(&with(&recipe(0)))),
        (forwards + 600, backwards + 200)
    );
    assert_eq!(passes(&never), (forwards, backwards));
}

#[test]
fn a_list_trains_a_defense_at_each_value() {
    let place = Place::new(&with("- { name: mart, attack: { steps: 2 }, lambda: [0.5, 5] }"));
    place.expect(0, &["m.yaml"]);
    let rows = results::read_rows(&place.path("runs/small/results.parquet")).unwrap();
    let mut labels: Vec<&str> = rows.iter().map(|row| row.defense.as_str()).collect();
    labels.dedup();
    assert_eq!(labels, ["MART λ=0.5", "MART λ=5"]);
    // They are the cells of entries written one by one.
    let keys = |matrix: &str| {
        std::fs::write(place.path("m.yaml"), matrix).unwrap();
        let (out, _) = place.expect(0, &["plan", "m.yaml", "--json"]);
        let cells: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
        cells
            .into_iter()
            .map(|it| it["key"].to_string())
            .collect::<BTreeSet<_>>()
    };
    let list = keys(&with("- { name: mart, attack: { steps: 2 }, lambda: [0.5, 5] }"));
    let one = keys(&with("- { name: mart, attack: { steps: 2 }, lambda: 5, label: five }"));
    assert!(one.is_subset(&list) && one.len() < list.len());

    let mistake = |entry: &str, parts: &[&str]| {
        let (_, err) = Place::new(&with(entry)).expect(2, &["validate", "m.yaml"]);
        assert!(parts.iter().all(|part| err.contains(part)), "{err}");
    };
    mistake(
        "- { name: mart, lambda: [] }",
        &["m.yaml:", "`defenses[0].lambda`", "empty list"],
    );
    mistake(
        "- { name: mart, lambda: [1, -1] }",
        &["`defenses[0].lambda`", "at least 0"],
    );
    mistake(
        "- { name: mart, lambda: [1, 1.0], share: [0, 1] }",
        &["`defenses[0].share`", "a second list"],
    );
    mistake(
        "- { name: mart, lamda: [1, 2] }",
        &["unknown field `lamda`", "did you mean `lambda`"],
    );
    mistake(
        "- { name: mart, lambda: [5, 5.0] }",
        &["`defenses[0].lambda`", "5.0 is listed twice"],
    );
}

/// A handful of images still has one to choose the best checkpoint on.
#[test]
fn a_small_limit_leaves_a_validation_image() {
    let place = Place::new(common::SMALL);
    place.expect(0, &["validate", "m.yaml", "--limit", "3"]);
}
