//! Values as a matrix writes them.

use serde_json::{Value, json};

/// An entry as it is written in a matrix: `{ name: pgd, steps: 20 }`.
pub(crate) fn example(name: &str, fields: &str) -> String {
    let mut entry = serde_json::Map::from_iter([("name".to_string(), json!(name))]);
    entry.extend(serde_json::from_str::<serde_json::Map<_, _>>(fields).unwrap_or_default());
    // The name comes first whatever order the map keeps.
    let name = entry.remove("name").map(|name| ("name".to_string(), name));
    flow(name.into_iter().chain(entry))
}

/// A map in YAML's flow form.
pub(crate) fn flow(fields: impl IntoIterator<Item = (String, Value)>) -> String {
    let field = |(key, value): (String, Value)| match value {
        Value::String(text) => format!("{key}: {text}"),
        Value::Object(map) => format!("{key}: {}", flow(map)),
        other => format!("{key}: {other}"),
    };
    format!("{{ {} }}", fields.into_iter().map(field).collect::<Vec<_>>().join(", "))
}

/// A value as a matrix has it.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => flow(map.clone()),
        Value::Null => "none".to_string(),
        Value::Number(number) => {
            let text = number.to_string();
            text.strip_suffix(".0").unwrap_or(&text).to_string()
        }
        other => other.to_string(),
    }
}
