//! Settings in words.

use serde_json::{Map, Number, Value};

/// A value as text: a field by its name, nested fields in parentheses, a list with commas.
pub(super) fn phrase(value: &Value) -> String {
    match value {
        Value::Null => "none".to_string(),
        Value::Bool(true) => "yes".to_string(),
        Value::Bool(false) => "no".to_string(),
        Value::Number(number) => rounded(number),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(nested).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => fields_of(fields, &[]),
    }
}

/// Fields with their names, but without those left out, those that are null and switches that are off. The flat form
/// has them all.
pub(super) fn fields_of(fields: &Map<String, Value>, without: &[&str]) -> String {
    let given = fields
        .iter()
        .filter(|(name, value)| !without.contains(&name.as_str()) && !value.is_null() && **value != Value::Bool(false));
    let texts: Vec<String> = given
        .map(|(name, value)| match value {
            Value::Bool(true) => spaced(name),
            value => format!("{} {}", spaced(name), nested(value)),
        })
        .collect();
    texts.join(", ")
}

/// To four significant digits if a fraction has more, as 1/3 has.
fn rounded(number: &Number) -> String {
    let exact = number.to_string();
    match number.as_f64() {
        Some(value) if number.is_f64() && exact.len() > 8 && value.is_normal() => {
            let places = (3.0 - value.abs().log10().floor()).max(0.0) as usize;
            format!("{value:.places$}")
        }
        _ => exact,
    }
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
            "at 75, 90, start gaussian (sigma 0.001), step size 2/255, steps 10"
        );
    }

    #[test]
    fn fractions_without_end_are_cut() {
        let texts = [1.0 / 3.0, 0.0035, 2.0, 1e-8, 123_456.789_01].map(|value| phrase(&json!(value)));
        assert_eq!(texts, ["0.3333", "0.0035", "2.0", "1e-8", "123457"]);
        assert_eq!(phrase(&json!(9_007_199_254_740_993u64)), "9007199254740993");
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
