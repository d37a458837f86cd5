//! From a path into a document to a line and column of its text.

use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::path::{Path, Place, Segment};

/// The place of `path` in `text`, or of the longest part of it that exists.
pub fn locate(text: &str, path: &Path) -> Option<Place> {
    (1..=path.0.len()).rev().find_map(|length| {
        // The traversal ends in an error on purpose: the library attaches the position to it.
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
        // A missing key is reported at the position of its nearest parent.
        check("recipe.optimizer.momentum", 7, 3);
        check("defenses[7]", 2, 1);
    }
}
