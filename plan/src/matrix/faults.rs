//! What keeps a value from being of a type: every fault of it, each at its field and in plain words.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field, such as `optimizer.rate`; empty for the value as a whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl Fault {
    /// A field that is not there.
    pub(crate) fn missing(field: &str) -> Self {
        Self {
            field: String::new(),
            message: format!("missing field `{field}`"),
        }
    }
}

/// A typed value.
///
/// # Errors
/// The first fault.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    read(&value)
}

/// A typed value and all faults of what it was made from. Fields at fault are left out of it; `None`: without them there
/// is no value.
pub(crate) fn salvage<T: DeserializeOwned>(value: Value) -> (Option<T>, Vec<Fault>) {
    let mut left = value;
    let mut faults: Vec<Fault> = Vec::new();
    loop {
        let fault = match read::<T>(&left) {
            Ok(typed) => return (Some(typed), faults),
            Err(fault) => fault,
        };
        // Without a field that was wrong, a type may miss it.
        let missing = !faults.is_empty() && fault.message.starts_with("missing field");
        // And a map may be wrong because of the field that is gone from it.
        let within = format!("{}.", fault.field);
        let emptied = faults.iter().any(|earlier| earlier.field.starts_with(&within));
        // An item of a list goes with its list, so that the others keep their indices.
        let whole = fault.field.split('[').next().unwrap_or_default().to_string();
        if !missing && !emptied {
            faults.push(fault);
        }
        if missing || !remove(&mut left, &whole) {
            return (None, faults);
        }
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error: serde_path_to_error::Error<serde_json::Error>| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let message = error.into_inner().to_string();
        if let Some(Value::Object(map)) = find(value, &path)
            && unknown_name(&message).is_some_and(|name| map.contains_key(name))
        {
            return Fault {
                field: path,
                message: "expected a name, found a map".to_string(),
            };
        }
        let field = deepest::<T>(value, path, &message);
        Fault {
            field,
            message: in_plain_words(&message),
        }
    })
}

/// The field at fault, where serde names only the map around it, as it does where a `name` decides which fields there are:
/// the one without which the message is another one.
fn deepest<T: DeserializeOwned>(whole: &Value, path: String, message: &str) -> String {
    if let Some(unknown) = unknown_field(message) {
        let named = path == unknown || path.ends_with(&format!(".{unknown}"));
        return if named { path } else { join(&path, unknown) };
    }
    if message.starts_with("missing field") {
        return path;
    }
    let Some(Value::Object(map)) = find(whole, &path) else {
        return path;
    };
    if message.starts_with("unknown variant") && map.contains_key("name") {
        return join(&path, "name");
    }
    // Without its name, a map is wrong in another way whatever else it holds.
    let mut others = map.keys().filter(|key| *key != "name");
    let at_fault = others.find(|key| {
        let mut without = whole.clone();
        remove(&mut without, &join(&path, key));
        let error = serde_json::from_value::<T>(without).err();
        error.is_none_or(|error| error.to_string() != message)
    });
    at_fault.map_or(path.clone(), |key| join(&path, key))
}

/// The name that serde does not know.
fn unknown_name(message: &str) -> Option<&str> {
    message.strip_prefix("unknown variant `")?.split('`').next()
}

/// The field that serde does not know.
pub(crate) fn unknown_field(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field `")?.split('`').next()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_string()
    } else {
        format!("{path}.{key}")
    }
}

fn steps(path: &str) -> Vec<&str> {
    path.split(['.', '[', ']']).filter(|step| !step.is_empty()).collect()
}

fn find<'a>(whole: &'a Value, path: &str) -> Option<&'a Value> {
    steps(path).into_iter().try_fold(whole, deeper)
}

/// A field of a map.
pub(crate) fn find_in<'a>(map: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let steps = steps(path);
    let (first, rest) = steps.split_first()?;
    rest.iter()
        .try_fold(map.get(*first)?, |value, step| deeper(value, step))
}

fn deeper<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    }
}

/// Removes a field of a map. `false`: it is not there.
pub(crate) fn remove(whole: &mut Value, path: &str) -> bool {
    let steps = steps(path);
    let Some((last, parents)) = steps.split_last() else {
        return false;
    };
    let parent = parents.iter().try_fold(whole, |value, step| match value {
        Value::Object(map) => map.get_mut(*step),
        Value::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
        _ => None,
    });
    match parent {
        Some(Value::Object(map)) => map.remove(*last).is_some(),
        _ => false,
    }
}

/// A message of serde's without the names of Rust's types.
pub(crate) fn in_plain_words(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return format!("unknown name {rest}");
    }
    let Some((found, expected)) = split(message) else {
        return message.to_string();
    };
    format!("expected {}, found {}", plain_expected(expected), plain_found(found))
}

/// What was found and what was expected.
fn split(message: &str) -> Option<(&str, &str)> {
    let rest = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))?;
    rest.rsplit_once(", expected ")
}

fn plain_expected(expected: &str) -> String {
    let words = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "u128" | "NonZeroU64" | "a nonzero u64" => "a whole number from 0 up",
        "i8" | "i16" | "i32" | "i64" | "isize" | "i128" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "`true` or `false`",
        "a string" | "a borrowed string" | "string or map" | "path string" => "text",
        "a sequence" => "a list",
        "a map" | "a Map" | "map with a single key" => "a map",
        "unit" => "nothing",
        "option" => "a value",
        other if other.starts_with("struct ") || other.starts_with("internally tagged enum") => "a map",
        other if other.starts_with("enum ") || other.starts_with("variant identifier") => "a name",
        other if other.starts_with("a tuple") || other.starts_with("an array") || other.starts_with("tuple struct") => {
            "a list"
        }
        other => other,
    };
    words.to_string()
}

fn plain_found(found: &str) -> String {
    if let Some(text) = found.strip_prefix("string ") {
        return format!("the text {text}");
    }
    for (kind, words) in [
        ("integer `", "`"),
        ("floating point `", "`"),
        ("boolean `", "`"),
        ("character `", "`"),
    ] {
        if let Some(rest) = found.strip_prefix(kind) {
            return format!("{words}{rest}");
        }
    }
    match found {
        "null" | "unit value" | "Option value" => "nothing",
        "sequence" => "a list",
        "map" => "a map",
        other => other,
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the reader is tested")]
    struct Outer {
        count: u64,
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        list: Vec<f64>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only the reader is tested")]
    enum Inner {
        Sgd {
            rate: f64,
            #[serde(default)]
            nesterov: bool,
        },
    }

    #[track_caller]
    fn check(value: Value, expected: &[(&str, &str)]) {
        let (_, faults) = salvage::<Outer>(value);
        let found: Vec<_> = faults.iter().map(|fault| (&*fault.field, &*fault.message)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn faults_are_at_their_fields_and_in_plain_words() {
        check(
            json!({"count": "one"}),
            &[("count", "expected a whole number from 0 up, found the text \"one\"")],
        );
        check(
            json!({"count": -3}),
            &[("count", "expected a whole number from 0 up, found `-3`")],
        );
        check(
            json!({"count": 1.5}),
            &[("count", "expected a whole number from 0 up, found `1.5`")],
        );
        check(
            json!({"count": 1, "list": 3}),
            &[("list", "expected a list, found `3`")],
        );
        check(
            json!({"count": null}),
            &[("count", "expected a whole number from 0 up, found nothing")],
        );
    }

    #[test]
    fn fields_of_named_maps_are_found() {
        check(
            json!({"count": 1, "inner": {"name": "sgd", "rate": "fast"}}),
            &[("inner.rate", "expected a number, found the text \"fast\"")],
        );
        check(
            json!({"count": 1, "inner": {"name": "sgd", "rate": 1, "nesterov": 2}}),
            &[("inner.nesterov", "expected `true` or `false`, found `2`")],
        );
        check(
            json!({"count": 1, "inner": {"name": "sgd", "rte": 1}}),
            &[("inner.rte", "unknown field `rte`, expected `rate` or `nesterov`")],
        );
        check(
            json!({"count": 1, "inner": {"name": "sdg", "rate": 1}}),
            &[("inner.name", "unknown name `sdg`, expected `sgd`")],
        );
        check(
            json!({"count": 1, "inner": {"name": "sgd"}}),
            &[("inner", "missing field `rate`")],
        );
    }

    #[test]
    fn every_fault_is_found_in_one_reading() {
        check(
            json!({"count": "one", "extra": 1, "list": [1, "two"]}),
            &[
                ("count", "expected a whole number from 0 up, found the text \"one\""),
                (
                    "extra",
                    "unknown field `extra`, expected one of `count`, `inner`, `list`",
                ),
                ("list[1]", "expected a number, found the text \"two\""),
            ],
        );
    }
}
