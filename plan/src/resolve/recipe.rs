//! From what a matrix says of training to a complete recipe.

use attacks::Setting;
use defenses::{Defense, Recipe};
use serde_json::{Map, Value, json};

use crate::matrix::from_value;

/// A mistake in a recipe.
pub(super) struct RecipeProblem {
    /// Whether it stands in the defense's own `recipe` rather than the block's.
    pub(super) in_own: bool,
    pub(super) field: String,
    pub(super) message: String,
}

/// The recipe of a defense and its label: the base (`shared` or `authors`), with the block's changes
/// and then the defense's own laid over it.
pub(super) fn resolve_recipe(
    defense: &dyn Defense,
    setting: &Setting,
    block: Option<&Value>,
    own: Option<&Value>,
) -> Result<(Recipe, String), RecipeProblem> {
    let block = Layer::read(block, false)?;
    let own = Layer::read(own, true)?;
    let base = own.from.clone().or(block.from.clone());
    let (base, label) = match base.as_deref() {
        Some("authors") => match defense.authors_recipe(setting) {
            Some(recipe) => (recipe, "authors"),
            // Natural training, say, has no authors. The label tells the reader.
            None => (defenses::shared_recipe(setting), "shared"),
        },
        _ => (defenses::shared_recipe(setting), "shared"),
    };
    let mut recipe = serde_json::to_value(base).expect("a recipe is plain data");
    for layer in [&block, &own] {
        lay_over(&mut recipe, &Value::Object(layer.changes.clone()));
    }
    let changes = block.changes.keys().chain(own.changes.keys());
    let changed = changes.into_iter().any(|key| !OPTIONS.contains(&key.as_str()));
    let in_own = |field: &str| {
        let key = field.split(['.', '[']).next().unwrap_or("");
        let key = if key == "length" {
            ["epochs", "steps"]
        } else {
            [key, key]
        };
        key.iter().any(|key| own.written.contains(&(*key).to_string()))
    };
    let recipe: Recipe = from_value(recipe).map_err(|(field, message)| RecipeProblem {
        in_own: own.written.contains(&unknown_field(&message)) || in_own(&field),
        field: if field.is_empty() {
            unknown_field(&message)
        } else {
            field
        },
        // A matrix writes the length as one of these, and `from` beside it.
        message: message.replace("`length`", "`from`, `epochs`, `steps`"),
    })?;
    recipe.check().map_err(|invalid| RecipeProblem {
        in_own: in_own(&invalid.field),
        field: invalid.field.replace("length.", ""),
        message: invalid.message,
    })?;
    let mut label = label.to_string();
    if changed {
        label += ", changed";
    }
    for mark in marks(&recipe) {
        label += &format!(", {mark}");
    }
    Ok((recipe, label))
}

/// The keys of a recipe that add something to training, whatever else the recipe is.
const OPTIONS: &[&str] = &["awp", "averaging"];

/// What a recipe adds to training, as labels show it.
pub(super) fn marks(recipe: &Recipe) -> Vec<&'static str> {
    let marks = [(recipe.awp.is_some(), "AWP"), (recipe.averaging.is_some(), "EMA")];
    marks
        .into_iter()
        .filter(|(used, _)| *used)
        .map(|(_, mark)| mark)
        .collect()
}

/// A recipe as a matrix writes it: its length as `epochs` or `steps`, and nothing that is off.
pub fn written_recipe(recipe: &Recipe) -> Value {
    let mut written = serde_json::to_value(recipe).expect("a recipe is plain data");
    let map = written.as_object_mut().expect("a map");
    if let Some(Value::Object(length)) = map.remove("length") {
        map.extend(length);
    }
    map.retain(|_, value| !value.is_null());
    written
}

fn unknown_field(message: &str) -> String {
    let unknown = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split('`').next());
    unknown.unwrap_or("").to_string()
}

/// What one `recipe` key says.
struct Layer {
    from: Option<String>,
    changes: Map<String, Value>,
    /// The keys as they were written.
    written: Vec<String>,
}

impl Layer {
    fn read(value: Option<&Value>, in_own: bool) -> Result<Self, RecipeProblem> {
        let problem = |field: &str, message: &str| RecipeProblem {
            in_own,
            field: field.to_string(),
            message: message.to_string(),
        };
        const BASES: &str = "a recipe starts from `shared` or `authors`";
        let mut changes = match value {
            None | Some(Value::Null) => Map::new(),
            Some(Value::String(name)) => Map::from_iter([("from".to_string(), json!(name))]),
            Some(Value::Object(map)) => map.clone(),
            Some(_) => return Err(problem("", "a recipe is `shared`, `authors` or a map")),
        };
        let written = changes.keys().cloned().collect();
        let from = match changes.remove("from") {
            None => None,
            Some(Value::String(name)) if name == "shared" || name == "authors" => Some(name),
            Some(_) => return Err(problem("from", BASES)),
        };
        for unit in ["epochs", "steps"] {
            if let Some(count) = changes.remove(unit) {
                let length = json!({ unit: count });
                if changes.insert("length".to_string(), length).is_some() {
                    return Err(problem(
                        unit,
                        "a recipe is as long as its `epochs` or its `steps`, not both",
                    ));
                }
            }
        }
        Ok(Self { from, changes, written })
    }
}

/// Lays a document over another: maps key by key, but a map with another `name`, and a length in
/// another unit, replaces the old one whole.
fn lay_over(base: &mut Value, over: &Value) {
    let (Value::Object(old), Value::Object(new)) = (&mut *base, over) else {
        *base = over.clone();
        return;
    };
    for (key, value) in new {
        let replaces = |old: &Value| {
            let other_name = value.get("name").is_some_and(|name| old.get("name") != Some(name));
            other_name || key == "length"
        };
        match old.get_mut(key) {
            Some(old) if !replaces(old) => lay_over(old, value),
            _ => {
                old.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_laid_over_maps_unless_they_name_another_thing() {
        let mut recipe = json!({"batch": 128, "optimizer": {"name": "sgd", "rate": 0.1, "momentum": 0.9}});
        lay_over(&mut recipe, &json!({"optimizer": {"rate": 0.01}}));
        assert_eq!(
            recipe["optimizer"],
            json!({"name": "sgd", "rate": 0.01, "momentum": 0.9})
        );
        lay_over(&mut recipe, &json!({"optimizer": {"name": "adam", "rate": 0.001}}));
        assert_eq!(recipe["optimizer"], json!({"name": "adam", "rate": 0.001}));
        assert_eq!(recipe["batch"], 128);
    }

    #[test]
    fn labels_say_what_a_recipe_adds() {
        let (methods, setting) = (defenses::builtin(), setting());
        let mart = methods.parse("mart", json!({}), &setting).unwrap().method;
        let check = |block: Value, own: Value, expected: &str| {
            let (recipe, label) = resolve_recipe(mart.as_ref(), &setting, Some(&block), Some(&own))
                .ok()
                .unwrap();
            assert_eq!(label, expected);
            recipe
        };
        let plain = check(json!("authors"), Value::Null, "authors");
        let awp = json!({"from": "authors", "awp": {"gamma": 0.01}});
        let recipe = check(awp.clone(), Value::Null, "authors, AWP");
        assert_eq!(recipe.awp, Some(defenses::Awp { gamma: 0.01, warmup: 0 }));
        assert_eq!(Recipe { awp: None, ..recipe }, plain);
        let recipe = check(
            awp.clone(),
            json!({"awp": {"warmup": 5}, "averaging": {}}),
            "authors, AWP, EMA",
        );
        assert_eq!(recipe.awp, Some(defenses::Awp { gamma: 0.01, warmup: 5 }));
        // A defense may leave out what its block adds.
        assert_eq!(check(awp.clone(), json!({"awp": null}), "authors"), plain);
        check(awp, json!({"batch": 64}), "authors, changed, AWP");
        check(json!({"averaging": {"start": 3}}), Value::Null, "shared, EMA");

        let wrong = |own: Value, field: &str, part: &str| {
            let problem = resolve_recipe(mart.as_ref(), &setting, None, Some(&own)).err().unwrap();
            assert!(
                problem.in_own && problem.field == field && problem.message.contains(part),
                "{}",
                problem.message
            );
        };
        wrong(json!({"awp": {"gamma": -1}}), "awp.gamma", "above 0");
        wrong(json!({"awp": {"rho": 1}}), "awp.rho", "unknown field `rho`");
        wrong(json!({"averaging": {"decay": 1}}), "averaging.decay", "[0, 1)");
    }

    fn setting() -> Setting {
        Setting {
            family: attacks::Family::Cifar,
            threat: serde_json::from_value(json!({"norm": "linf", "epsilon": "8/255"})).unwrap(),
            network: "resnet18".into(),
            image: [3, 32, 32],
            classes: 10,
        }
    }
}
