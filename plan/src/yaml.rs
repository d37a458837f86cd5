//! The only file that knows the YAML library: a matrix's text becomes plain JSON values here, and a
//! path into those values becomes a line and column of the text.

use std::cell::Cell;
use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::Value;

/// One step of a path into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Into a map.
    Key(String),
    /// Into a list.
    Index(usize),
}

/// A path into a document, shown as `defenses[1].lambda`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(pub(crate) Vec<Segment>);

impl Path {
    /// This path and a key.
    pub fn key(&self, key: &str) -> Self {
        self.join(Segment::Key(key.to_string()))
    }

    /// This path and an index.
    pub fn index(&self, index: usize) -> Self {
        self.join(Segment::Index(index))
    }

    fn join(&self, segment: Segment) -> Self {
        let mut longer = self.clone();
        longer.0.push(segment);
        longer
    }

    /// This path followed by one in the notation `a.b[2].c`.
    pub fn dotted(&self, text: &str) -> Self {
        let mut longer = self.clone();
        for part in text.split(['.', '[']).filter(|part| !part.is_empty()) {
            longer
                .0
                .push(match part.strip_suffix(']').and_then(|digits| digits.parse().ok()) {
                    Some(index) => Segment::Index(index),
                    None => Segment::Key(part.to_string()),
                });
        }
        longer
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if i == 0 => write!(f, "{key}")?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A place in a text, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// Why a text is not YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// What the parser says.
    pub message: String,
    /// Where, if the parser knows.
    pub place: Option<Place>,
}

/// The document as plain values. Duplicate keys are errors; merge keys (`<<`) are applied.
pub fn parse(text: &str) -> Result<Value, SyntaxError> {
    let plain = |yaml: serde_yaml::Value| -> Result<Value, serde_yaml::Error> {
        let mut yaml = yaml;
        yaml.apply_merge()?;
        serde_yaml::from_value(yaml)
    };
    let left = Cell::new(GROWTH * text.len() + ALLOWANCE);
    let weighed = Weigh(&left).deserialize(serde_yaml::Deserializer::from_str(text));
    let parsed = weighed.and_then(|()| serde_yaml::from_str(text));
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
        SyntaxError {
            message: message.to_string(),
            place,
        }
    })
}

/// A text may be this many times its own length, plus [`ALLOWANCE`], with every alias written out. Otherwise a few lines
/// of aliases to aliases would take any amount of memory.
const GROWTH: usize = 16;
const ALLOWANCE: usize = 4096;

/// Walks through a document, aliases included, and counts down what is left of its allowance.
struct Weigh<'a>(&'a Cell<usize>);

impl Weigh<'_> {
    fn take<E: de::Error>(&self, weight: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(weight);
        self.0.set(left.unwrap_or(0));
        left.map(|_| ())
            .ok_or_else(|| E::custom("its aliases expand to much more text than the file holds; write the values out"))
    }
}

impl<'de> DeserializeSeed<'de> for Weigh<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Weigh<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.take(1)?;
        while map.next_key_seed(Weigh(self.0))?.is_some() {
            map.next_value_seed(Weigh(self.0))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.take(1)?;
        while seq.next_element_seed(Weigh(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        self.take(1)?;
        let ((), content) = tagged.variant_seed(Weigh(self.0))?;
        content.newtype_variant_seed(Weigh(self.0))
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

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<(), E> {
        self.take(1)
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<(), E> {
        self.take(1)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.take(1)
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.take(1)
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        self.take(1)
    }
}

/// The place of `path` in `text`, or of the longest part of it that exists.
pub fn locate(text: &str, path: &Path) -> Option<Place> {
    (1..=path.0.len()).rev().find_map(|length| {
        // The walk ends in an error on purpose: the library attaches the place to it.
        let error = Walk(&path.0[..length])
            .deserialize(serde_yaml::Deserializer::from_str(text))
            .err()?;
        let at = error.location().filter(|_| error.to_string().contains(FOUND))?;
        Some(Place {
            line: at.line(),
            column: at.column(),
        })
    })
}

const FOUND: &str = "the walk has arrived";

struct Walk<'a>(&'a [Segment]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { FOUND } else { "a map or list" })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.0.split_first() else {
            return Err(de::Error::custom(FOUND));
        };
        let Segment::Key(key) = first else { return Ok(()) };
        while let Some(here) = map.next_key_seed(WalkKey {
            wanted: key,
            last: rest.is_empty(),
        })? {
            if here {
                return map.next_value_seed(Walk(rest));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.0.split_first() else {
            return Err(de::Error::custom(FOUND));
        };
        let Segment::Index(index) = first else { return Ok(()) };
        for _ in 0..*index {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        seq.next_element_seed(Walk(rest)).map(|_| ())
    }
}

/// Whether a key is the wanted one. The last key of a path is where the path points, rather than
/// its value, which may begin lines later.
struct WalkKey<'a> {
    wanted: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for WalkKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for WalkKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        if key == self.wanted && self.last {
            return Err(E::custom(FOUND));
        }
        Ok(key == self.wanted)
    }

    fn visit_u64<E: de::Error>(self, key: u64) -> Result<bool, E> {
        self.visit_str(&key.to_string())
    }
}

/// A value written on the command line, as in `--set recipe.epochs=2`.
pub fn parse_scalar(text: &str) -> Value {
    // What is not YAML is meant as plain text.
    parse(text).unwrap_or_else(|_| Value::String(text.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
name: small
defenses:
  - { name: trades, beta: 6 }
  - name: mart
    lambda: five
recipe:
  optimizer: { name: sgd,
    rate: 0.1 }
";

    #[track_caller]
    fn check(path: &str, line: usize, column: usize) {
        assert_eq!(
            locate(TEXT, &Path::default().dotted(path)),
            Some(Place { line, column }),
            "{path}"
        );
    }

    #[test]
    fn paths_have_places() {
        check("name", 1, 1);
        check("defenses", 2, 1);
        check("defenses[0]", 3, 5);
        check("defenses[0].beta", 3, 21);
        check("defenses[1].lambda", 5, 5);
        check("recipe.optimizer.rate", 8, 5);
        // What is not there is placed where its nearest parent is.
        check("recipe.optimizer.momentum", 7, 3);
        check("defenses[7]", 2, 1);
    }

    #[test]
    fn syntax_errors_have_places() {
        let error = parse("a: 1\nb: [1, 2\n").unwrap_err();
        assert_eq!(error.place.unwrap().line, 3, "{error:?}");
        assert!(parse("a: 1\na: 2\n").unwrap_err().message.contains("duplicate"));
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
        // What people do with them is fine.
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
