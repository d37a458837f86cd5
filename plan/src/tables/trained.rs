//! What tables and figures need to know about each training.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cell::Training;

/// A training as figures name it, and the weight of its loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trained {
    /// Name of the data set.
    pub dataset: String,
    /// Name of the network.
    pub network: String,
    /// Label of the defense.
    pub defense: String,
    /// Name of its method.
    pub method: String,
    /// Label of the recipe.
    pub recipe: String,
    /// Seed.
    pub seed: u64,
    /// Its resolved configuration. `null` in runs of earlier builds.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub config: Value,
    /// The weight of its loss's second term, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<LossWeight>,
}

/// λ or β of a defense.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossWeight {
    /// What papers call it.
    pub symbol: String,
    /// Its value.
    pub value: f64,
    /// A hash of everything else that decides a training's numbers, except the seed.
    pub family: String,
}

/// How configurations name the weight, and what papers call it.
const WEIGHTS: [(&str, &str); 2] = [("lambda", "λ"), ("beta", "β")];

impl Trained {
    /// What tables and figures need to know about a training.
    pub fn of(training: &Training) -> Self {
        Self {
            dataset: training.dataset.name.clone(),
            network: training.network.clone(),
            defense: training.label.clone(),
            method: training.defense.name.to_string(),
            recipe: training.recipe_label.clone(),
            seed: training.seed,
            config: serde_json::from_str(&training.config).expect("a configuration is JSON"),
            weight: weight(training),
        }
    }

    /// What distinguishes it from the other trainings of a run.
    pub fn names(&self) -> Names<'_> {
        (&self.dataset, &self.network, &self.defense, &self.recipe, self.seed)
    }
}

/// Data set, network, defense, recipe and seed.
pub type Names<'a> = (&'a str, &'a str, &'a str, &'a str, u64);

fn weight(training: &Training) -> Option<LossWeight> {
    let mut config = training.defense.config.clone();
    let fields = config.as_object_mut()?;
    let (value, symbol) = WEIGHTS
        .iter()
        .find_map(|(field, symbol)| Some((fields.remove(*field)?.as_f64()?, *symbol)))?;
    let rest = json!({
        "dataset": training.dataset, "network": training.network, "threat": training.setting.threat,
        "method": training.defense.name, "config": config, "recipe": training.recipe,
    });
    Some(LossWeight {
        symbol: symbol.to_string(),
        value,
        family: hash(&rest),
    })
}

fn hash(value: &Value) -> String {
    blake3::hash(value.to_string().as_bytes()).to_hex()[..16].to_string()
}
