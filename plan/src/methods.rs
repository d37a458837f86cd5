//! The methods a matrix can name: those that come with the program, and any added from outside.

use attacks::{Attack, Registry};
use defenses::Defense;
use models::Networks;

/// The methods a matrix can name.
#[derive(Debug)]
pub struct Methods {
    /// Attacks by name.
    pub attacks: Registry<dyn Attack>,
    /// Defenses by name.
    pub defenses: Registry<dyn Defense>,
    /// Networks by name.
    pub networks: Networks,
}

impl Methods {
    /// The methods that come with the program.
    pub fn builtin() -> Self {
        Self {
            attacks: attacks::builtin(),
            defenses: defenses::builtin(),
            networks: Networks::builtin(),
        }
    }
}
