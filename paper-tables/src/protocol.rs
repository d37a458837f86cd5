//! The protocol under which a number was published, and where a row's own differs from it.
//!
//! A protocol lists the settings that its source states, each with the values that agree with it. Settings are named by
//! their path in a row's resolved configurations, such as `recipe.optimizer.rate`. What a source does not state is not
//! compared; the citation's note names it.

use std::collections::{BTreeMap, BTreeSet};

use results::Row;
use serde::Deserialize;
use serde_json::Value;

/// The values of each setting that agree with a source. A path that ends in `?` is compared only where a configuration
/// has it.
type Settings = BTreeMap<String, Vec<Value>>;

/// What a source states about how its numbers were measured.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// What citations refer to.
    pub id: String,
    /// Where the settings were read, and which of them are assumed.
    pub source: String,
    /// How many test images there are.
    pub(crate) test_images: u64,
    /// Settings of every attacked evaluation.
    pub(crate) every_attack: Settings,
    /// More settings of an evaluation, by the paper's attack.
    pub(crate) attacks: BTreeMap<String, Settings>,
    /// Settings of every training.
    pub(crate) training: Settings,
    /// More settings of a training, by the paper's defense.
    pub(crate) defenses: BTreeMap<String, Settings>,
}

/// One respect in which a row's protocol is not the published one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// What it is a matter of.
    pub(crate) of: Concern,
    /// Such as `steps 1, not 20`.
    pub text: String,
}

/// What a difference is a matter of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Concern {
    /// The images.
    Data,
    /// The attack.
    Attack,
    /// The defense and its recipe.
    Training,
}

impl Protocol {
    /// Every respect in which the protocol of a row differs from this one, for the paper's defense and attack.
    pub(crate) fn differences(&self, row: &Row, method: &str, attack: &str) -> BTreeSet<Difference> {
        let mut found = BTreeSet::new();
        let mut add = |of, text: String| {
            found.insert(Difference { of, text });
        };
        if !row.verified {
            add(
                Concern::Data,
                format!("{} is not verified to be the published data set", row.dataset),
            );
        }
        if let Some(n) = row.n.filter(|n| *n != self.test_images) {
            add(Concern::Data, format!("{n} of {} test images", self.test_images));
        }
        let none = Settings::new();
        let own =
            |settings: &'_ BTreeMap<String, Settings>, name: &str| settings.get(name).cloned().unwrap_or_default();
        let every = if attack == NATURAL { &none } else { &self.every_attack };
        let sides = [
            (
                Concern::Attack,
                &row.evaluation_config,
                [every, &own(&self.attacks, attack)].map(Clone::clone),
            ),
            (
                Concern::Training,
                &row.training_config,
                [&self.training, &own(&self.defenses, method)].map(Clone::clone),
            ),
        ];
        for (concern, config, settings) in sides {
            let Some(config) = config
                .as_deref()
                .and_then(|text| serde_json::from_str::<Value>(text).ok())
            else {
                add(
                    concern,
                    "settings were not recorded by the program that made the row".to_string(),
                );
                continue;
            };
            for (path, allowed) in settings.iter().flatten() {
                if let Some(text) = difference(&config, path, allowed) {
                    add(concern, text);
                }
            }
        }
        found
    }
}

/// The paper's name of clean images.
const NATURAL: &str = "natural";

/// How a setting differs, if it does.
fn difference(config: &Value, path: &str, allowed: &[Value]) -> Option<String> {
    let (path, optional) = match path.strip_suffix('?') {
        Some(path) => (path, true),
        None => (path, false),
    };
    let mut ours = Some(config);
    for field in path.split('.') {
        ours = ours.and_then(|value| value.get(field));
    }
    let ours = match ours {
        None if optional => return None,
        None => &Value::Null,
        Some(ours) => ours,
    };
    if allowed.iter().any(|value| is_same(ours, value)) {
        return None;
    }
    let allowed: Vec<String> = allowed.iter().map(text).collect();
    Some(format!("{} {}, not {}", name(path), text(ours), allowed.join(" or ")))
}

/// `8/255` is the number that it is near to.
fn is_same(a: &Value, b: &Value) -> bool {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        _ => a == b,
    }
}

fn number(value: &Value) -> Option<f64> {
    let text = match value {
        Value::String(text) => text,
        value => return value.as_f64(),
    };
    match text.split_once('/') {
        Some((above, below)) => Some(above.trim().parse::<f64>().ok()? / below.trim().parse::<f64>().ok()?),
        None => text.parse().ok(),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "none".to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            format!("[{}]", items.join(", "))
        }
        value => value.to_string(),
    }
}

/// A setting's name for readers.
fn name(path: &str) -> String {
    match path {
        "threat.epsilon" => return "ε".to_string(),
        "attack.name" => return "attack".to_string(),
        "recipe.optimizer.name" => return "optimizer".to_string(),
        "recipe.optimizer.rate" => return "learning rate".to_string(),
        "recipe.schedule.at" => return "learning rate falls at".to_string(),
        "dataset.limit" => return "limit of the training set".to_string(),
        _ => {}
    }
    let (prefix, name) = match path.strip_prefix("defense.config.attack.") {
        Some(name) => ("inner attack's ", name),
        None => ("", path.rsplit('.').next().unwrap_or(path)),
    };
    format!("{prefix}{}", name.replace('_', " "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures;
    use crate::published::Published;

    fn texts(row: &Row) -> Vec<String> {
        let mut protocols = Published::embedded().protocols.iter();
        let protocol = protocols.find(|protocol| protocol.id == "cifar10-resnet18").unwrap();
        let found = protocol.differences(row, "mart", "pgd20");
        found.into_iter().map(|difference| difference.text).collect()
    }

    fn changed(text: &Option<String>, path: &[&str], value: Value) -> Option<String> {
        let mut config: Value = serde_json::from_str(text.as_ref().unwrap()).unwrap();
        let mut field = &mut config;
        for name in path {
            field = &mut field[*name];
        }
        *field = value;
        Some(config.to_string())
    }

    #[test]
    fn the_papers_own_protocol_has_no_difference() {
        assert_eq!(texts(&fixtures::as_published()), Vec::<String>::new());
    }

    #[test]
    fn each_setting_that_differs_is_named() {
        let row = fixtures::as_published;
        let attack = |path: &[&str], value| Row {
            evaluation_config: changed(&row().evaluation_config, path, value),
            ..row()
        };
        let training = |path: &[&str], value| Row {
            training_config: changed(&row().training_config, path, value),
            ..row()
        };
        let config = |field: &'static str| ["attack", "config", field];
        for (row, expected) in [
            (attack(&["threat", "epsilon"], json!("1/255")), "ε 1/255, not 8/255"),
            (attack(&["threat", "norm"], json!("l2")), "norm l2, not linf"),
            (attack(&config("start"), json!("none")), "start none, not uniform"),
            (attack(&config("steps"), json!(1)), "steps 1, not 20"),
            (
                attack(&config("step_size"), json!("0.01")),
                "step size 0.01, not 0.8/255",
            ),
            (attack(&config("restarts"), json!(5)), "restarts 5, not 1"),
            (attack(&config("loss"), json!("kl")), "loss kl, not cross-entropy"),
            (
                training(&["recipe", "length"], json!({ "epochs": 2 })),
                "epochs 2, not 100 or 120",
            ),
            (
                training(&["recipe", "length"], json!({ "steps": 80000 })),
                "epochs none, not 100 or 120",
            ),
            (
                training(&["recipe", "optimizer", "weight_decay"], json!(0.0005)),
                "weight decay 0.0005, not 0.0035",
            ),
            (
                training(&["defense", "config", "lambda"], json!(6.0)),
                "lambda 6.0, not 5.0",
            ),
            (
                training(&["defense", "config", "attack", "steps"], json!(7)),
                "inner attack's steps 7, not 10",
            ),
            (
                training(&["dataset", "limit"], json!(500)),
                "limit of the training set 500, not none",
            ),
            (
                Row {
                    verified: false,
                    ..row()
                },
                "cifar10 is not verified to be the published data set",
            ),
            (row().with_count(500, 250), "500 of 10000 test images"),
            (
                Row {
                    training_config: None,
                    ..row()
                },
                "settings were not recorded by the program that made the row",
            ),
        ] {
            assert_eq!(texts(&row), [expected]);
        }
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert!(is_same(&json!("0.8/255"), &json!(0.8 / 255.0)));
        assert!(is_same(&json!("0.30"), &json!(0.3)));
        assert!(!is_same(&json!("0.031"), &json!("8/255")));
        assert!(is_same(&Value::Null, &Value::Null) && !is_same(&Value::Null, &json!(0)));
    }
}
