//! What is fuzzed.

use crate::Rng;

/// Bytes for a reader.
#[derive(Debug, Clone)]
pub struct Input {
    /// The file.
    pub bytes: Vec<u8>,
    /// What the reader must do with these bytes.
    pub demand: Demand,
}

/// What is known about an input from the way it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// Nothing.
    None,
    /// It must be refused.
    Refuse,
    /// A checksum covers it, so it must be refused or read as the same values as the seed of this number.
    AsSeed(usize),
}

/// The answer of a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It refused the bytes.
    Refused,
    /// It accepted them, and rightly.
    Accepted,
    /// It accepted what it should not have, for this reason.
    Wrong(String),
}

type Damage = dyn Fn(&mut Rng, &[Vec<u8>]) -> Input + Send + Sync;
type Check = dyn Fn(&Input, &[Vec<u8>]) -> Verdict + Send + Sync;

/// A reader, valid files for it, and ways to damage them.
pub struct Target {
    /// Its name on the command line and of its folder in `corpus`.
    pub name: &'static str,
    /// Valid files.
    pub seeds: Vec<Vec<u8>>,
    /// The most memory for each byte of a file, in bytes …
    pub per_byte: usize,
    /// … and the constant beside it.
    pub constant: usize,
    pub(crate) damage: Box<Damage>,
    pub(crate) check: Box<Check>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Input number `index`.
    pub fn input(&self, index: u64) -> Input {
        (self.damage)(&mut Rng::of(self.name, index), &self.seeds)
    }

    /// Calls the reader and evaluates its answer. Panics if the reader does.
    pub fn check(&self, input: &Input) -> Verdict {
        (self.check)(input, &self.seeds)
    }

    /// The same for bytes of which nothing else is known.
    pub fn check_bytes(&self, bytes: &[u8]) -> Verdict {
        self.check(&Input {
            bytes: bytes.to_vec(),
            demand: Demand::None,
        })
    }

    /// How much memory reading a file of this length may take.
    pub fn allowance(&self, length: usize) -> usize {
        self.per_byte * length + self.constant
    }
}
