//! Rampart with a defense, an attack and a network added from outside.

mod corners;
mod mixed;
mod quadratic;

use std::process::ExitCode;

use crate::corners::Corners;
use crate::mixed::Mixed;
use crate::quadratic::Quadratic;

fn main() -> ExitCode {
    harness::Harness::new()
        .defense::<Mixed>()
        .attack::<Corners>()
        .network::<Quadratic>()
        .main()
}
