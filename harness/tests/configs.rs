//! What a cell really used is on record: in its folder, the plan, its row and the table of recipes.

mod common;

use common::{Place, SMALL};
use serde_json::Value;

fn json(file: &std::path::Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn digest(text: &[u8]) -> String {
    blake3::hash(text).to_hex().to_string()
}

#[test]
fn every_cell_records_its_resolved_configuration() {
    let place = Place::new(SMALL);
    let (out, _) = place.expect(0, &["plan", "m.yaml", "--json"]);
    place.expect(0, &["m.yaml"]);
    let planned: Vec<Value> = serde_json::from_str(&out).unwrap();
    let stored = json(&place.path("runs/small/plan.json"));
    let stored = stored.as_array().unwrap();
    assert_eq!(planned.len(), stored.len());
    for (planned, stored) in planned.iter().zip(stored) {
        assert_eq!(planned["config"], stored["config"]);
        let (key, name) = (stored["key"].as_str().unwrap(), stored["name"].as_str().unwrap());
        let folder = place.path(&format!("runs/small/cells/{}-{name}", &key[..12]));
        let text = std::fs::read(folder.join("config.json")).unwrap();
        assert!(digest(&text).starts_with(key), "{name}");
        assert_eq!(
            serde_json::from_slice::<Value>(&text).unwrap(),
            stored["config"],
            "{name}"
        );
    }
    // Defaults are filled: the matrix names neither momentum nor the loss of the inner attack.
    let standard = stored
        .iter()
        .find(|cell| cell["config"]["defense"]["name"] == "standard")
        .unwrap();
    let config = &standard["config"];
    assert_eq!(config["recipe"]["optimizer"]["momentum"], 0.9);
    assert_eq!(config["recipe"]["optimizer"]["rate"], 0.05);
    assert_eq!(config["defense"]["config"]["attack"]["loss"], "cross-entropy");

    for row in results::read_rows(&place.path("runs/small/results.parquet")).unwrap() {
        assert!(digest(row.evaluation_config.as_ref().unwrap().as_bytes()).starts_with(&row.cell));
        let evaluation: Value = serde_json::from_str(&row.evaluation_config.unwrap()).unwrap();
        let training = digest(row.training_config.as_ref().unwrap().as_bytes());
        assert!(training.starts_with(evaluation["target"]["training"].as_str().unwrap()));
    }

    place.expect(0, &["check", "runs/small"]);
    let file = place.path("runs/small/plan.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("0.9", "0.8", 1)).unwrap();
    let (out, _) = place.expect(6, &["check", "runs/small"]);
    assert!(out.contains("plan.json is not the plan that was run"), "{out}");
}

#[test]
fn recipes_of_a_run_are_a_table() {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml", "--set", "seeds=[0,1]"]);
    let table = |extension: &str| {
        let file = place.path(&format!("runs/small/tables/recipes.{extension}"));
        std::fs::read_to_string(file).unwrap()
    };
    let csv = table("csv");
    let mut lines = csv.lines();
    let head: Vec<&str> = lines.next().unwrap().split(',').collect();
    let column = |name: &str| {
        head.iter()
            .position(|field| *field == name)
            .unwrap_or_else(|| panic!("{csv}"))
    };
    // One line for each defense, both seeds in it; the source of transferred attacks has a seed of its own too.
    let lines: Vec<&str> = lines.collect();
    assert_eq!(lines.len(), 2, "{csv}");
    assert!(lines.iter().all(|line| line.contains(r#""0, 1"#)), "{csv}");
    assert!(column("recipe.optimizer.rate") > 0 && column("defense.config.attack.steps") > 0);
    let markdown = table("md");
    assert!(
        markdown.contains("2 steps of") && markdown.contains("length: 2 epochs (the same for all)"),
        "{markdown}"
    );
    assert!(table("tex").contains("sgd, momentum 0.9"), "{}", table("tex"));
}
