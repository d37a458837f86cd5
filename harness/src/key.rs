//! Keys of cells.

use std::collections::BTreeMap;

use serde_json::Value;

/// The hash of a configuration: BLAKE3 over its JSON with sorted keys, 32 hexadecimal digits.
pub(crate) fn key_of(config: &Value) -> String {
    let mut text = String::new();
    canonical(config, &mut text);
    blake3::hash(text.as_bytes()).to_hex()[..32].to_string()
}

/// JSON with sorted keys and no spaces, whatever order the map type keeps.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            for (i, (key, value)) in sorted.into_iter().enumerate() {
                out.push(if i == 0 { '{' } else { ',' });
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
            }
            out.push_str(if map.is_empty() { "{}" } else { "}" });
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                out.push(if i == 0 { '[' } else { ',' });
                canonical(item, out);
            }
            out.push_str(if items.is_empty() { "[]" } else { "]" });
        }
        plain => out.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_depend_on_the_order_of_fields() {
        let key = |text: &str| key_of(&serde_json::from_str(text).unwrap());
        assert_eq!(
            key(r#"{"a": 1, "b": [{"c": 2, "d": 3}]}"#),
            key(r#"{"b": [{"d": 3, "c": 2}], "a": 1}"#)
        );
        assert_ne!(key(r#"{"a": [1, 2]}"#), key(r#"{"a": [2, 1]}"#));
        assert_ne!(key(r#"{"a": 1}"#), key(r#"{"a": 1.5}"#));
    }
}
