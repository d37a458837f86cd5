//! The names of cells' folders.

use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The folder of all cells' folders, in a run's.
pub const CELLS: &str = "cells";

/// The name of a cell's folder: the first digits of the cell's key, a dash and a readable part, such as
/// `0a1b2c3d4e5f-digits-tiny-cnn-trades-s0`.
///
/// Every name of a cell that comes from a file or a listing passes through this type. It is the name of a folder in
/// `cells` and leads nowhere else, because it has neither separators nor dots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CellName(String);

/// Text that is not the name of a cell's folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not the name of a cell's folder", .0.escape_debug())]
pub struct NotACellName(String);

impl CellName {
    /// Number of digits of the cell's key at the beginning of the name.
    pub const KEY_DIGITS: usize = 12;
    /// Maximum number of characters of the readable part.
    const READABLE: usize = 100;

    /// The name of the cell with this key, and with this readable part or its beginning.
    ///
    /// # Panics
    /// If the key does not begin with twelve lower-case hexadecimal digits.
    pub fn new(key: &str, readable: &str) -> Self {
        let readable: String = readable
            .chars()
            .take(Self::READABLE)
            .map(|c| if is_plain(c) { c } else { '-' })
            .collect();
        let digits = key.get(..Self::KEY_DIGITS).expect("a key has more digits");
        format!("{digits}-{readable}").parse().expect("a key is hexadecimal")
    }

    /// The first digits of the cell's key.
    pub fn key_digits(&self) -> &str {
        &self.0[..Self::KEY_DIGITS]
    }

    /// The part after the key.
    pub fn readable(&self) -> &str {
        &self.0[Self::KEY_DIGITS + 1..]
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a character may be part of a folder's name without meaning anything to a file system.
fn is_plain(c: char) -> bool {
    !matches!(c, '.' | '/' | '\\' | ':') && !c.is_control()
}

impl FromStr for CellName {
    type Err = NotACellName;

    fn from_str(name: &str) -> Result<Self, NotACellName> {
        let digits = name
            .bytes()
            .take_while(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            .count();
        // The readable part may begin with such digits only after the dash.
        let is_name =
            digits == Self::KEY_DIGITS && name.as_bytes().get(digits) == Some(&b'-') && name.chars().all(is_plain);
        if is_name {
            Ok(Self(name.to_string()))
        } else {
            Err(NotACellName(name.to_string()))
        }
    }
}

impl TryFrom<String> for CellName {
    type Error = NotACellName;

    fn try_from(name: String) -> Result<Self, NotACellName> {
        name.parse()
    }
}

impl From<CellName> for String {
    fn from(name: CellName) -> Self {
        name.0
    }
}

impl std::fmt::Display for CellName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<Path> for CellName {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_name_leads_nowhere_else() {
        let name = CellName::new("0123456789abcdef", "digits-tiny-cnn-mart-s0");
        assert_eq!(name.as_str(), "0123456789ab-digits-tiny-cnn-mart-s0");
        assert_eq!(
            (name.key_digits(), name.readable()),
            ("0123456789ab", "digits-tiny-cnn-mart-s0")
        );
        assert_eq!(name.as_str().parse(), Ok(name));
        for name in [
            "",
            "0123456789ab",
            "0123456789abc-x",
            "0123456789a-x",
            "0123456789AB-x",
            "../0123456789ab-x",
            "/0123456789ab-x",
            "0123456789ab-../x",
            "0123456789ab-x/y",
            "0123456789ab-x\\y",
            "0123456789ab-x.0011223344556677",
            "0123456789ab-x\0",
            "0123456789é-x",
            "éééééééééééé-x",
        ] {
            assert!(name.parse::<CellName>().is_err(), "{name:?}");
            assert!(serde_json::from_value::<CellName>(name.into()).is_err(), "{name:?}");
        }
    }

    #[test]
    fn every_cell_has_a_name() {
        let long = CellName::new("0123456789abcdef", &"é".repeat(200));
        assert_eq!(long.readable().chars().count(), 100);
        assert_eq!(CellName::new("0123456789abcdef", "a.b/c").readable(), "a-b-c");
        assert_eq!(CellName::new("0123456789abcdef", "").readable(), "");
    }
}
