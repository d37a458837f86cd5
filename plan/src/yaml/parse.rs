//! From a matrix's text to plain JSON values.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::Value;

use super::path::Place;

/// Why a text is not YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// The parser's message.
    pub message: String,
    /// Where, if the parser knows.
    pub place: Option<Place>,
}

/// The document as plain values. Merge keys (`<<`) are applied.
///
/// # Errors
/// The text is not YAML, repeats a key, has numbers that JSON cannot express, or aliases that would fill memory.
pub fn parse(text: &str) -> Result<Value, SyntaxError> {
    let plain = |yaml: serde_yaml::Value| -> Result<Value, serde_yaml::Error> {
        let mut yaml = yaml;
        yaml.apply_merge()?;
        serde_yaml::from_value(yaml)
    };
    let allowance = Cell::new(GROWTH * text.len() + ALLOWANCE);
    let checked = Check(&allowance).deserialize(serde_yaml::Deserializer::from_str(text));
    let parsed = checked.and_then(|()| serde_yaml::from_str(text));
    parsed.and_then(plain).map_err(|error| {
        let place = error.location().map(|at| Place {
            line: at.line(),
            column: at.column(),
        });
        let message = error.to_string();
        // The place is reported separately.
        let message = message
            .rsplit_once(" at line ")
            .map_or(message.as_str(), |(head, _)| head);
        in_plain_words(text, message, place)
    })
}

/// What the library reports, in words for people who write YAML without knowing its grammar.
fn in_plain_words(text: &str, message: &str, place: Option<Place>) -> SyntaxError {
    let line = place.and_then(|place| text.lines().nth(place.line.saturating_sub(1)));
    if message.contains("more than one document") {
        let marks = text.lines().enumerate().filter(|(_, line)| line.trim_end() == "---");
        let second = marks.map(|(i, _)| i).filter(|i| *i > 0).last();
        return SyntaxError {
            message: "a second document begins here; a matrix is one document".to_string(),
            place: second.map(|i| Place { line: i + 1, column: 1 }),
        };
    }
    if message.contains("cannot start any token")
        && line.is_some_and(|line| line.trim_start_matches(' ').starts_with('\t'))
    {
        return SyntaxError {
            message: "a tab; indent with spaces, since YAML allows no tabs there".to_string(),
            place,
        };
    }
    if let Some((column, mark)) = line.and_then(invisible) {
        return SyntaxError {
            message: format!("the invisible character U+{:04X}; delete it", u32::from(mark)),
            place: place.map(|place| Place { column, ..place }),
        };
    }
    SyntaxError {
        message: message.to_string(),
        place,
    }
}

/// The first invisible character that YAML does not treat as a blank, with its column, counted from 1.
pub fn invisible(text: &str) -> Option<(usize, char)> {
    let unseen = |c: &char| {
        matches!(
            c,
            '\u{feff}' | '\u{a0}' | '\u{200b}'..='\u{200f}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut characters = text.chars().enumerate();
    characters.find(|(_, c)| unseen(c)).map(|(i, c)| (i + 1, c))
}

/// A text may be this many times its own length, plus [`ALLOWANCE`], with every alias written out. Otherwise a few lines
/// of aliases to aliases would take any amount of memory.
const GROWTH: usize = 16;
const ALLOWANCE: usize = 4096;

/// Walks through a document, aliases included: counts down what is left of its allowance, and finds keys that are there
/// twice and numbers that JSON has none for. The library adds the place to the errors raised here.
struct Check<'a>(&'a Cell<usize>);

impl Check<'_> {
    fn take<E: de::Error>(&self, weight: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(weight);
        self.0.set(left.unwrap_or(0));
        left.map(|_| ())
            .ok_or_else(|| E::custom("its aliases expand to much more text than the file holds; write the values out"))
    }
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.take(1)?;
        let seen = RefCell::new(HashSet::new());
        while map.next_key_seed(CheckKey(self.0, &seen))?.is_some() {
            map.next_value_seed(Check(self.0))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.take(1)?;
        while seq.next_element_seed(Check(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        self.take(1)?;
        let ((), content) = tagged.variant_seed(Check(self.0))?;
        content.newtype_variant_seed(Check(self.0))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.take(1 + text.len())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.take(1)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.take(1)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.take(1)
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<(), E> {
        Err(E::custom(format!("{number} is too small a number")))
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<(), E> {
        Err(E::custom(format!("{number} is too large a number")))
    }

    // JSON would make them null, and null means the default.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        if !number.is_finite() {
            return Err(E::custom("not a finite number; leave the field out for its default"));
        }
        self.take(1)
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.take(1)
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        self.take(1)
    }
}

/// As [`Check`], for the key of a map: text that has not occurred in it yet.
struct CheckKey<'a>(&'a Cell<usize>, &'a RefCell<HashSet<String>>);

impl CheckKey<'_> {
    fn refuse<E: de::Error>(key: &dyn fmt::Display) -> Result<(), E> {
        Err(E::custom(format!(
            "the key `{key}` is not text; put it in quotes, and write numbers with a point (0.2, not 0,2)"
        )))
    }
}

impl<'de> DeserializeSeed<'de> for CheckKey<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for CheckKey<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key of text")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<(), E> {
        if !self.1.borrow_mut().insert(key.to_string()) {
            return Err(E::custom(format!(
                "`{key}` is here a second time; a map has each key once"
            )));
        }
        Check(self.0).take(1 + key.len())
    }

    fn visit_bool<E: de::Error>(self, key: bool) -> Result<(), E> {
        Self::refuse(&key)
    }

    fn visit_i64<E: de::Error>(self, key: i64) -> Result<(), E> {
        Self::refuse(&key)
    }

    fn visit_u64<E: de::Error>(self, key: u64) -> Result<(), E> {
        Self::refuse(&key)
    }

    fn visit_f64<E: de::Error>(self, key: f64) -> Result<(), E> {
        Self::refuse(&key)
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Self::refuse(&"null")
    }
}

/// A value written on the command line, as in `--set recipe.epochs=2`.
pub fn parse_scalar(text: &str) -> Value {
    // Anything that is not YAML is taken as plain text.
    parse(text).unwrap_or_else(|_| Value::String(text.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_errors_have_places() {
        let error = parse("a: 1\nb: [1, 2\n").unwrap_err();
        assert_eq!(error.place.unwrap().line, 3, "{error:?}");
    }

    #[track_caller]
    fn refuses(text: &str, line: usize, column: usize, part: &str) {
        let error = parse(text).unwrap_err();
        assert!(error.message.contains(part), "{error:?}");
        assert_eq!(error.place, Some(Place { line, column }), "{error:?}");
    }

    #[test]
    fn mistakes_of_writing_have_places_and_plain_words() {
        refuses("a: 1\nb: 2\na: 3\n", 3, 1, "`a` is here a second time");
        refuses("a:\n  x: {p: 1, q: 2, p: 3}\n", 2, 19, "`p` is here a second time");
        refuses("a: .nan\n", 1, 4, "not a finite number");
        refuses("a: [1, -.inf]\n", 1, 8, "not a finite number");
        refuses("a: 99999999999999999999999\n", 1, 4, "too large");
        refuses("a: {b: 0,2}\n", 1, 10, "0.2, not 0,2");
        refuses("a:\n\tb: 1\n", 2, 1, "indent with spaces");
        refuses("a: 1\n---\nb: 2\n", 2, 1, "a second document");
        refuses("a: 1\n\u{feff}b: 2\n", 2, 1, "U+FEFF");
    }

    /// A long list that is referred to over and over, and lists of lists of lists.
    #[test]
    fn aliases_do_not_fill_memory() {
        let long = format!("a: &a [{}]\nb: [{}]\n", "1, ".repeat(1000), "*a, ".repeat(1000));
        assert!(parse(&long).unwrap_err().message.contains("aliases"));
        let mut laughs = String::from("l0: &l0 [x, x]\n");
        for i in 1..40 {
            laughs += &format!("l{i}: &l{i} [*l{}, *l{}]\n", i - 1, i - 1);
        }
        assert!(parse(&laughs).is_err());
        // Ordinary uses of aliases are accepted.
        let list = (0..40)
            .map(|i| format!("  - {{ name: d{i}, attack: *inner }}\n"))
            .collect::<String>();
        parse(&format!(
            "inner: &inner {{ steps: 7, step_size: 0.1 }}\ndefenses:\n{list}"
        ))
        .unwrap();
    }

    #[test]
    fn merge_keys_are_applied() {
        let value = parse("base: &b {x: 1}\nit: {<<: *b, y: 2}\n").unwrap();
        assert_eq!(value["it"], serde_json::json!({"x": 1, "y": 2}));
    }
}
