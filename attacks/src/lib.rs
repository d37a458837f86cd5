//! Adversarial attacks and the losses they ascend: one attack, one file.
//!
//! An attack does no I/O, reads no clock and no global random state. Images are `[B, C, H, W]` in
//! `[0, 1]`; every length (radius, step) is in the same units.

mod pixels;
mod protocol;
mod registry;
mod threat;

mod loss;
pub mod losses;

pub mod ball;
mod host;
mod rows;
mod start;

mod batch;
mod cost;
mod perturbed;
mod probe;

mod progress;
mod survivors;
mod targets;

mod attack;

mod natural;

mod fgsm;
mod pgd;
mod worst;

mod cw;

mod diversity;
mod momentum;

mod di_fgsm;
mod mi_fgsm;
mod ti_fgsm;

mod apgd;
mod apgd_t;
mod auto_attack;
mod fab;
mod square;

mod spsa;

mod an_pgd;
mod fosc;
mod trades_l2;

#[cfg(test)]
mod closed_forms;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reference_tests;

use std::sync::Arc;

pub use an_pgd::{AnPgd, Boundary};
pub use apgd::{Apgd, Keep};
pub use apgd_t::ApgdT;
pub use attack::{Attack, Description, Sequence};
pub use auto_attack::{AutoAttack, Member, Version};
pub use batch::Batch;
pub use cost::Cost;
pub use cw::{Cw, Variant};
pub use di_fgsm::DiFgsm;
pub use fab::{Aim, Fab};
pub use fgsm::Fgsm;
pub use fosc::{FoscPgd, Origin, fosc};
pub use loss::Loss;
pub use mi_fgsm::MiFgsm;
pub use natural::Natural;
pub use perturbed::{Perturbed, Queries};
pub use pgd::{Iterate, Pgd};
pub use pixels::{InvalidPixels, Pixels};
pub use probe::{BatchNorm, Probe, Slope};
pub use progress::Progress;
pub use protocol::{MOST, check_bounds, check_step_size, positive};
pub use registry::{Configured, Entry, Family, Invalid, Method, ParseError, Registry, Setting};
pub use rows::{replace_rows, select_rows};
pub use spsa::Spsa;
pub use square::Square;
pub use start::Start;
pub use survivors::Survivors;
pub use threat::{Norm, Threat};
pub use ti_fgsm::TiFgsm;
pub use trades_l2::TradesL2;

/// The attacks of this crate.
pub fn builtin() -> Registry<dyn Attack> {
    let mut registry: Registry<dyn Attack> = Registry::new("attack");
    registry.add::<Natural>(|attack| Arc::new(attack));
    registry.add::<Fgsm>(|attack| Arc::new(attack));
    registry.add::<Pgd>(|attack| Arc::new(attack));
    registry.add::<Cw>(|attack| Arc::new(attack));
    registry.add::<MiFgsm>(|attack| Arc::new(attack));
    registry.add::<DiFgsm>(|attack| Arc::new(attack));
    registry.add::<TiFgsm>(|attack| Arc::new(attack));
    registry.add::<Apgd>(|attack| Arc::new(attack));
    registry.add::<ApgdT>(|attack| Arc::new(attack));
    registry.add::<Fab>(|attack| Arc::new(attack));
    registry.add::<Square>(|attack| Arc::new(attack));
    registry.add::<AutoAttack>(|attack| Arc::new(attack));
    registry.add::<Spsa>(|attack| Arc::new(attack));
    registry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_written_in_kebab_case() {
        let check = |json: serde_json::Value, shown: &str| {
            let loss: Loss = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(loss.to_string(), shown);
            assert_eq!(serde_json::to_value(loss).unwrap(), json);
        };
        check("cross-entropy".into(), "cross-entropy");
        check(serde_json::json!({"cw": {"kappa": 50.0}}), "cw(kappa=50)");
        check("cw-batch-sum".into(), "cw-batch-sum");
        assert!(serde_json::from_value::<Loss>(serde_json::json!({"cw": {"kappa": 50.0, "beta": 1}})).is_err());
    }
}
