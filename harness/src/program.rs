//! The program, and how to add to it from outside.

use std::process::ExitCode;
use std::sync::Arc;

use attacks::{Attack, Method};
use defenses::Defense;
use models::Named;
use plan::Methods;

/// The program with the methods it ships with, and any of your own.
///
/// ```no_run
/// harness::Harness::new().main();
/// ```
///
/// A crate of yours adds a defense, an attack or a network and needs no other line; its program knows every command,
/// and its cells have keys of their own:
///
/// ```ignore
/// fn main() -> std::process::ExitCode {
///     harness::Harness::new().defense::<Mine>().attack::<Yours>().network::<Theirs>().main()
/// }
/// ```
#[derive(Debug)]
pub struct Harness {
    methods: Methods,
}

impl Default for Harness {
    fn default() -> Self {
        Self::new()
    }
}

impl Harness {
    /// What comes with the program.
    #[must_use]
    pub fn new() -> Self {
        Self {
            methods: Methods::builtin(),
        }
    }

    /// Adds a defense. Panics if its name is taken.
    #[must_use]
    pub fn defense<D: Method + Defense>(mut self) -> Self {
        self.methods.defenses.add::<D>(|defense| Arc::new(defense));
        self
    }

    /// Adds an attack. Panics if its name is taken.
    #[must_use]
    pub fn attack<A: Method + Attack>(mut self) -> Self {
        self.methods.attacks.add::<A>(|attack| Arc::new(attack));
        self
    }

    /// Adds a network. Panics if its name is taken.
    #[must_use]
    pub fn network<N: Named>(mut self) -> Self {
        self.methods.networks.add::<N>();
        self
    }

    /// Reads the command line and does what it says. Results go to stdout, everything else to stderr.
    pub fn main(self) -> ExitCode {
        crate::cli::main(&self.methods)
    }
}
