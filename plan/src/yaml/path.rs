//! Paths into a document, and places in its text.

use std::fmt;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}
