//! Keys of cells.

use serde::Serialize;
use serde_json::Value;

/// The hash of a configuration: BLAKE3 over its JSON with sorted keys, 32 hexadecimal digits.
pub(crate) fn key_of(config: &Value) -> String {
    let mut text = Vec::new();
    canonical(config, &mut text);
    blake3::hash(&text).to_hex()[..32].to_string()
}

/// JSON with sorted keys and no spaces, whatever order the map type keeps.
fn canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            out.push(b'{');
            let mut sorted: Vec<_> = map.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            for (i, (key, value)) in sorted.into_iter().enumerate() {
                separate(i, out);
                scalar(key, out);
                out.push(b':');
                canonical(value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                separate(i, out);
                canonical(item, out);
            }
            out.push(b']');
        }
        plain => scalar(plain, out),
    }
}

fn separate(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
}

fn scalar(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("plain data into memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another text for the same configuration would give up every finished cell there is.
    #[test]
    fn keys_are_of_one_text() {
        let config = r#" {"c": null, "b": {}, "é\"": [1, 2.5, "\n", true, []], "a": 0.1} "#;
        let text = r#"{"a":0.1,"b":{},"c":null,"é\"":[1,2.5,"\n",true,[]]}"#;
        assert_eq!(
            key_of(&serde_json::from_str(config).unwrap()),
            blake3::hash(text.as_bytes()).to_hex()[..32]
        );
    }

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
