//! Lists of numbers in a defense's entry: one defense at each.

use attacks::Setting;
use serde_json::{Map, Value};

use super::scope::{Checked, DEFENSE_KEYS, Scope};

/// A defense's entry, and what its label ends in.
type Valued = (Map<String, Value>, String);

impl Scope<'_> {
    /// A defense at each value of a list given where it takes one number, as in `lambda: [1, 2]`, each with what
    /// its label ends in.
    pub(super) fn swept(&self, field: &str, entry: &Map<String, Value>, setting: &Setting) -> Checked<Vec<Valued>> {
        let lists: Vec<(&String, &Vec<Value>)> = entry
            .iter()
            .filter(|(key, _)| !DEFENSE_KEYS.contains(&key.as_str()))
            .filter_map(|(key, value)| Some((key, numbers(value)?)))
            .collect();
        let own_lists = || self.quietly(|| self.defense(field, entry, setting)).is_ok();
        let (key, values) = match lists[..] {
            [(key, values)] if !own_lists() => (key, values),
            [_, (key, _), ..] if !own_lists() => {
                let message = "a second list; a defense goes over one list of numbers, write several entries instead";
                return Err(self.error(&format!("{field}.{key}"), message));
            }
            _ => return Ok(vec![(entry.clone(), String::new())]),
        };
        if values.is_empty() {
            return Err(self.error(&format!("{field}.{key}"), "an empty list: nothing would run"));
        }
        let repeats = |(i, value): (usize, &Value)| values[..i].iter().any(|other| other.as_f64() == value.as_f64());
        if let Some((_, value)) = values.iter().enumerate().find(|pair| repeats(*pair)) {
            return Err(self.error(&format!("{field}.{key}"), format!("{value} is listed twice")));
        }
        let at = |value: &Value| {
            let mut entry = entry.clone();
            entry.insert(key.clone(), value.clone());
            (entry, format!(" {}={value}", symbol(key)))
        };
        Ok(values.iter().map(at).collect())
    }
}

/// The items of a list of numbers.
pub(super) fn numbers(value: &Value) -> Option<&Vec<Value>> {
    value.as_array().filter(|items| items.iter().all(Value::is_number))
}

/// How papers write a weight.
fn symbol(key: &str) -> &str {
    const GREEK: &[(&str, &str)] = &[("lambda", "λ"), ("beta", "β"), ("alpha", "α"), ("gamma", "γ")];
    GREEK
        .iter()
        .find(|(name, _)| *name == key)
        .map_or(key, |(_, letter)| letter)
}
