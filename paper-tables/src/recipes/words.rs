//! Settings in words.

use serde_json::{Map, Value};

/// A value as text: a field by its name, nested fields in parentheses, a list with commas.
pub(super) fn phrase(value: &Value) -> String {
    match value {
        Value::Null => "none".to_string(),
        Value::Bool(true) => "yes".to_string(),
        Value::Bool(false) => "no".to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(nested).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => fields_of(fields, &[]),
    }
}

/// Fields with their names, but without those left out and those that are null.
pub(super) fn fields_of(fields: &Map<String, Value>, without: &[&str]) -> String {
    let given = fields
        .iter()
        .filter(|(name, value)| !without.contains(&name.as_str()) && !value.is_null());
    let texts: Vec<String> = given
        .map(|(name, value)| match value {
            Value::Bool(true) => spaced(name),
            Value::Bool(false) => format!("no {}", spaced(name)),
            value => format!("{} {}", spaced(name), nested(value)),
        })
        .collect();
    texts.join(", ")
}

fn nested(value: &Value) -> String {
    match value {
        // A choice with fields of its own: `gaussian (sigma 0.001)`.
        Value::Object(fields) => match fields.iter().next() {
            Some((choice, inner @ Value::Object(_))) if fields.len() == 1 => format!("{choice} ({})", phrase(inner)),
            _ => format!("({})", phrase(value)),
        },
        value => phrase(value),
    }
}

fn spaced(name: &str) -> String {
    name.replace('_', " ")
}

/// Every value with the path of its fields, such as `recipe.optimizer.rate`.
pub fn settings(value: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    add(String::new(), value, &mut found);
    found
}

fn add(path: String, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                add(format!("{path}{dot}{name}"), value, found);
            }
        }
        Value::Null => {}
        Value::String(text) => found.push((path, text.clone())),
        value => found.push((path, value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_read_as_text() {
        let attack = json!({
            "steps": 10, "step_size": "2/255", "start": { "gaussian": { "sigma": "0.001" } }, "clip_start": false,
            "at": [75, 90], "limit": null,
        });
        assert_eq!(
            phrase(&attack),
            "at 75, 90, no clip start, start gaussian (sigma 0.001), step size 2/255, steps 10"
        );
    }

    #[test]
    fn no_value_is_lost_in_the_flat_form() {
        let config = json!({ "a": { "b": [1, 2], "c": null, "d": {} }, "e": "x", "f": false });
        let expected = [("a.b", "[1,2]"), ("a.d", "{}"), ("e", "x"), ("f", "false")];
        assert_eq!(
            settings(&config),
            expected.map(|(path, value)| (path.to_string(), value.to_string()))
        );
    }
}
