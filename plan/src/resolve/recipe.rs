//! Makes complete recipes of what a matrix states about training.

use attacks::Setting;
use defenses::{Defense, Recipe};
use serde_json::{Map, Value, json};

use crate::matrix::{find_in, head, salvage};

/// A mistake in a recipe.
pub(super) struct RecipeProblem {
    /// Whether it is in the defense's own `recipe` rather than the block's.
    pub(super) in_own: bool,
    pub(super) field: String,
    pub(super) message: String,
}

/// The recipe of a defense and its label: the base (`shared` or `authors`), with the block's changes
/// and then the defense's own laid over it. All mistakes come at once.
pub(super) fn resolve_recipe(
    defense: &dyn Defense,
    setting: &Setting,
    block: Option<&Value>,
    own: Option<&Value>,
) -> Result<(Recipe, String), Vec<RecipeProblem>> {
    let block = Layer::read(block, false).map_err(|problem| vec![problem])?;
    let own = Layer::read(own, true).map_err(|problem| vec![problem])?;
    let base = own.from.clone().or(block.from.clone());
    let (base, label) = match base.as_deref() {
        Some("authors") => match defense.authors_recipe(setting) {
            Some(recipe) => (recipe, "authors"),
            // Natural training, for example, has no authors. The label shows that.
            None => (defenses::shared_recipe(setting), "shared"),
        },
        _ => (defenses::shared_recipe(setting), "shared"),
    };
    let base = serde_json::to_value(base).expect("a recipe is plain data");
    let mut recipe = base.clone();
    for layer in [&block, &own] {
        lay_over(&mut recipe, &Value::Object(layer.changes.clone()));
    }
    let recipe = read_recipe(&base, recipe, &own)?;
    let mut changes = block.changes.keys().chain(own.changes.keys());
    let mut label = label.to_string();
    if changes.any(|key| !OPTIONS.contains(&key.as_str())) {
        label += ", changed";
    }
    for mark in marks(&recipe) {
        label += &format!(", {mark}");
    }
    Ok((recipe, label))
}

/// The recipe that a document states. Where a value is refused, the base's own replaces it, so that the next mistake
/// is found as well.
fn read_recipe(base: &Value, mut recipe: Value, own: &Layer) -> Result<Recipe, Vec<RecipeProblem>> {
    let mut problems: Vec<RecipeProblem> = Vec::new();
    let mut note = |field: &str, message: &str| {
        // A matrix writes the length as one of these, and `from` beside it.
        problems.push(RecipeProblem {
            in_own: own.holds(field),
            field: field.replace("length.", ""),
            message: message.replace("`length`", "`from`, `epochs`, `steps`"),
        });
    };
    let (typed, faults) = salvage::<Recipe>(recipe.clone());
    for fault in &faults {
        note(&fault.field, &fault.message);
        let key = head(&fault.field);
        restore(&mut recipe, base, key);
    }
    let mut left = if faults.is_empty() {
        typed
    } else {
        salvage(recipe.clone()).0
    };
    while let Some(invalid) = left.as_ref().and_then(|recipe| recipe.check().err()) {
        note(&invalid.field, &invalid.message);
        let key = head(&invalid.field);
        left = restore(&mut recipe, base, key)
            .then(|| salvage(recipe.clone()).0)
            .flatten();
    }
    match left {
        Some(recipe) if problems.is_empty() => Ok(recipe),
        _ => Err(problems),
    }
}

/// Puts the base's value of a key into a recipe. `false`: it was there already.
fn restore(recipe: &mut Value, base: &Value, key: &str) -> bool {
    let Some(map) = recipe.as_object_mut() else {
        return false;
    };
    let before = map.get(key).cloned();
    match base.get(key) {
        Some(value) => map.insert(key.to_string(), value.clone()),
        None => map.remove(key),
    };
    map.get(key) != before.as_ref()
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

/// What one `recipe` key asks for.
struct Layer {
    from: Option<String>,
    changes: Map<String, Value>,
    /// The keys as they were written.
    written: Vec<String>,
}

impl Layer {
    /// Whether a field of the recipe was written here, rather than in the layer below.
    fn holds(&self, field: &str) -> bool {
        if find_in(&self.changes, field).is_some() {
            return true;
        }
        let key = head(field);
        let units = ["epochs", "steps"];
        self.written
            .iter()
            .any(|written| written == key || (key == "length" && units.contains(&written.as_str())))
    }

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
        if changes.contains_key("length") {
            return Err(problem(
                "length",
                "unknown field `length`; a recipe has `epochs` or `steps`",
            ));
        }
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
            let problems = resolve_recipe(mart.as_ref(), &setting, None, Some(&own)).err().unwrap();
            let problem = &problems[0];
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
