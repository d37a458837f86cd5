//! The columns: what each says about a training.

use serde_json::{Map, Value};

use super::words::{fields_of, phrase};

/// A column: its heading, and its text for a resolved configuration.
pub(super) type Column = (&'static str, fn(&Value) -> String);

/// All columns, in the order of the table.
pub(super) const COLUMNS: [Column; 12] = [
    ("loss", loss),
    ("inner attack", inner_attack),
    ("threat model", threat),
    ("length", length),
    ("batch", |config| phrase(&config["recipe"]["batch"])),
    ("optimizer", optimizer),
    ("learning rate", learning_rate),
    ("weight decay", weight_decay),
    ("augmentation", augmentation),
    ("added", added),
    ("training set", training_set),
    ("best checkpoint", selection),
];

/// `mart: lambda 5, weighted`.
fn loss(config: &Value) -> String {
    let name = phrase(&config["defense"]["name"]);
    let fields = object(&config["defense"]["config"]).map_or_else(String::new, |fields| fields_of(fields, &["attack"]));
    if fields.is_empty() {
        name
    } else {
        format!("{name}: {fields}")
    }
}

/// `10 steps of 2/255, …`.
fn inner_attack(config: &Value) -> String {
    let Some(attack) = object(&config["defense"]["config"]["attack"]) else {
        return "–".to_string();
    };
    let (Some(steps), Some(size)) = (attack.get("steps"), attack.get("step_size")) else {
        return fields_of(attack, &[]);
    };
    let rest = fields_of(attack, &["steps", "step_size"]);
    format!("{} steps of {}, {rest}", phrase(steps), phrase(size))
}

fn threat(config: &Value) -> String {
    let threat = &config["threat"];
    let norm = match threat["norm"].as_str() {
        Some("linf") => "L∞",
        Some("l2") => "L2",
        _ => "",
    };
    format!("{norm}, ε = {}", phrase(&threat["epsilon"]))
}

/// `120 epochs`.
fn length(config: &Value) -> String {
    let length = object(&config["recipe"]["length"]).and_then(|length| length.iter().next());
    length.map_or_else(String::new, |(unit, count)| format!("{} {unit}", phrase(count)))
}

/// `sgd, momentum 0.9`. Rate and weight decay have columns of their own.
fn optimizer(config: &Value) -> String {
    let Some(fields) = object(&config["recipe"]["optimizer"]) else {
        return String::new();
    };
    let rest = fields_of(fields, &["name", "rate", "weight_decay", "decay"]);
    let name = fields.get("name").map_or_else(String::new, phrase);
    if rest.is_empty() {
        name
    } else {
        format!("{name}, {rest}")
    }
}

/// `0.01, × 0.1 at 75, 90`.
fn learning_rate(config: &Value) -> String {
    let rate = phrase(&config["recipe"]["optimizer"]["rate"]);
    let schedule = &config["recipe"]["schedule"];
    match (schedule["name"].as_str(), object(schedule)) {
        (Some("constant"), _) | (_, None) => rate,
        (Some("steps"), _) => format!(
            "{rate}, × {} at {}",
            phrase(&schedule["factor"]),
            phrase(&schedule["at"])
        ),
        (name, Some(fields)) => {
            let rest = fields_of(fields, &["name"]);
            let name = name.unwrap_or_default();
            let space = if rest.is_empty() { "" } else { " " };
            format!("{rate}, {name}{space}{rest}")
        }
    }
}

/// `0.0005`, and of which parameters where that is not all of them.
fn weight_decay(config: &Value) -> String {
    let optimizer = &config["recipe"]["optimizer"];
    let decay = &optimizer["weight_decay"];
    match optimizer["decay"].as_str() {
        _ if decay.is_null() || decay.as_f64() == Some(0.0) => "none".to_string(),
        None | Some("all") => phrase(decay),
        Some(of) => format!("{} of {of}", phrase(decay)),
    }
}

fn augmentation(config: &Value) -> String {
    match phrase(&config["recipe"]["augment"]) {
        text if text.is_empty() => "none".to_string(),
        text => text,
    }
}

/// What a recipe can add to any defense, and what a teacher adds.
fn added(config: &Value) -> String {
    let recipe = &config["recipe"];
    let parts = [
        ("AWP", &recipe["awp"]),
        ("averaged weights", &recipe["averaging"]),
        ("gradient clipped to", &recipe["clip_gradient"]),
        ("unlabeled images", &config["unlabeled"]),
        ("teacher", &config["teacher"]["checkpoint"]),
    ];
    let texts: Vec<String> = parts
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| match object(value) {
            Some(fields) => format!("{name} ({})", fields_of(fields, &[])),
            None => format!("{name} {}", phrase(value)),
        })
        .collect();
    if texts.is_empty() {
        "nothing".to_string()
    } else {
        texts.join(", ")
    }
}

/// `all images but 1000 for validation`.
fn training_set(config: &Value) -> String {
    let data = &config["dataset"];
    let mut text = match data["limit"].as_u64() {
        Some(count) => format!("the first {count} images"),
        None => "all images".to_string(),
    };
    match data["validation"].as_u64() {
        None | Some(0) => {}
        Some(count) => text += &format!(" but {count} for validation"),
    }
    if let Some(count) = data["labeled"].as_u64() {
        text += &format!(", {count} of them labeled");
    }
    text
}

/// `by pgd (steps 10, …) on validation images, every epoch`.
fn selection(config: &Value) -> String {
    let selection = &config["selection"];
    let Some(split) = selection["split"].as_str() else {
        return "not selected".to_string();
    };
    let attack = &selection["attack"];
    let every = match selection["every"].as_u64() {
        None | Some(1) => "every epoch".to_string(),
        Some(epochs) => format!("every {epochs} epochs"),
    };
    let (name, fields) = (phrase(&attack["name"]), phrase(&attack["config"]));
    format!("by {name} ({fields}) on {split} images, {every}")
}

fn object(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object()
}
