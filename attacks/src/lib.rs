//! Adversarial attacks and the losses they ascend: one attack, one file.
//!
//! An attack does no I/O, reads no clock and no global random state. Images are `[B, C, H, W]` in
//! `[0, 1]`; every length (radius, step) is in the same units.

mod pixels;
mod registry;
mod threat;

mod loss;
pub mod losses;
mod protocol;

pub mod ball;
mod host;
mod probe;
mod rows;
mod start;

mod natural;

mod fgsm;
mod pgd;
mod worst;

mod cw;
mod di_fgsm;
mod mi_fgsm;
mod ti_fgsm;

mod survivors;

mod apgd;
mod apgd_t;
mod auto_attack;
mod fab;
mod square;
mod square_pattern;

mod spsa;

mod an_pgd;
mod fosc;
mod trades_l2;

#[cfg(test)]
extern crate self as attacks;
#[cfg(test)]
mod closed_forms;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reference_attacks;
#[cfg(test)]
mod reference_auto_attack;
#[cfg(test)]
mod reference_losses;
#[cfg(test)]
#[allow(dead_code, reason = "the tests of two crates share it")]
mod testing;

use std::sync::Arc;

use candle_core::{Result, Tensor};
use models::Classifier;
use random::Stream;

pub use an_pgd::{AnPgd, Boundary};
pub use apgd::{Apgd, Keep};
pub use apgd_t::ApgdT;
pub use auto_attack::{AutoAttack, Member, Progress, Version};
pub use cw::{Cw, Variant};
pub use di_fgsm::DiFgsm;
pub use fab::{Aim, Fab};
pub use fgsm::Fgsm;
pub use fosc::{FoscPgd, Origin, fosc};
pub use loss::Loss;
pub use mi_fgsm::MiFgsm;
pub use natural::Natural;
pub use pgd::{Iterate, Pgd};
pub use pixels::{InvalidPixels, Pixels};
pub use probe::{BatchNorm, Probe, Slope};
pub use protocol::{check_step_size, positive};
pub use registry::{Configured, Entry, Family, Invalid, Method, ParseError, Registry, Setting};
pub use rows::{replace_rows, select_rows};
pub use spsa::Spsa;
pub use square::Square;
pub use start::Start;
pub use survivors::Survivors;
pub use threat::{Norm, Threat};
pub use ti_fgsm::TiFgsm;
pub use trades_l2::TradesL2;

/// Images with their labels and identities.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[B, C, H, W]` in `[0, 1]`.
    pub images: Tensor,
    /// Class indices `[B]`, u32.
    pub labels: Tensor,
    /// Which example each row is, for draws that follow the example wherever it is batched.
    pub ids: Vec<u64>,
}

/// Passes through the network, summed over examples: a batch of B forward is B forwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Forward passes.
    pub forwards: u64,
    /// Backward passes to the images.
    pub backwards: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.forwards += other.forwards;
        self.backwards += other.backwards;
    }
}

/// What an attack found.
#[derive(Debug, Clone)]
pub struct Perturbed {
    /// Adversarial images `[B, C, H, W]`, detached.
    pub images: Tensor,
    /// What it cost.
    pub cost: Cost,
    /// How many examples ever met a loss gradient that was exactly zero in every pixel.
    pub zero_gradients: u64,
    /// For each example what a query attack asked; `None` for attacks that follow gradients. The share of examples
    /// with `until_success` at most q is the attack's success after q queries.
    pub queries: Option<Vec<Queries>>,
}

/// What a query attack asked about one example. A query is one forward pass of one image; the clean image's own is not
/// counted, since whoever attacks an image has chosen it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queries {
    /// Queries in all.
    pub asked: u64,
    /// After how many of them an image was misclassified; 0: the clean image is; `None`: no image was.
    pub until_success: Option<u64>,
}

impl Queries {
    /// Before the first query about each of so many examples.
    pub(crate) fn start(examples: usize) -> Vec<Self> {
        vec![Self::default(); examples]
    }
}

/// How an attack is reported in a result row. `None`: the notion does not apply.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Description {
    /// Gradient steps of one restart.
    pub steps: Option<u64>,
    /// The length of a step.
    pub step_size: Option<Pixels>,
    /// Independent tries, of which the worst for the network counts.
    pub restarts: Option<u64>,
    /// The loss ascended.
    pub loss: Option<String>,
    /// Where it starts.
    pub start: Option<String>,
    /// The batch-norm mode in which the network is attacked.
    pub batch_norm: Option<String>,
}

/// Searches for images inside the threat model that the classifier gets wrong.
pub trait Attack: std::fmt::Debug + Send + Sync {
    /// Adversarial images for a batch. Depends on each example alone: neither on its companions in
    /// the batch nor on their order, unless the attack's documentation says so.
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed>;

    /// How a result row reports this attack.
    fn describe(&self) -> Description;

    /// What an example costs at most, where the cost depends on how soon it breaks: that of one that stands.
    /// `None`: every example costs the same.
    fn ceiling(&self, _classes: usize) -> Option<Cost> {
        None
    }

    /// Whether it asks for logits and sees nothing else of the network.
    fn by_queries(&self) -> bool {
        false
    }

    /// Itself, if it is a list of attacks between two of which it can be stopped and gone on from ([`Progress`]).
    fn in_parts(&self) -> Option<&AutoAttack> {
        None
    }
}

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
    fn every_attack_can_be_configured() {
        testing::check_entries(&builtin());
    }

    #[test]
    fn every_attack_can_describe_itself_and_run() {
        let batch = testing::waves(2, [1, 2, 3], 10);
        for setting in testing::settings() {
            for entry in builtin().entries() {
                let example = serde_json::from_str(entry.example).unwrap();
                let attack = builtin().parse(entry.name, example, &setting).unwrap().method;
                let stream = Stream::new(4);
                let found = attack
                    .perturb(&testing::Wave::new(10, 6, 4.0), &batch, &setting.threat, &stream)
                    .unwrap();
                assert_eq!(found.images.dims(), batch.images.dims());
                assert!(!found.images.track_op(), "{} returns images with a graph", entry.name);
                let description = attack.describe();
                assert_eq!(description.steps.is_some(), entry.name != "natural", "{}", entry.name);
            }
        }
    }

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
