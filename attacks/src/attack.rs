//! The traits that every attack implements.

use candle_core::Result;
use models::Classifier;
use random::Stream;

use crate::{Batch, Cost, Perturbed, Pixels, Probe, Progress, Threat};

/// How an attack is reported in a result row. `None`: the notion does not apply.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Description {
    /// Gradient steps of one restart.
    pub steps: Option<u64>,
    /// The length of a step.
    pub step_size: Option<Pixels>,
    /// Independent restarts; the worst one for the network counts.
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
    /// Adversarial images for a batch. The result for an example depends on that example alone, not on the rest of
    /// the batch, unless the attack's documentation says so.
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed>;

    /// How a result row reports this attack.
    fn describe(&self) -> Description;

    /// The largest cost of one example, where the cost depends on how soon it is broken: that of a robust example.
    /// `None`: every example costs the same.
    fn ceiling(&self, _classes: usize) -> Option<Cost> {
        None
    }

    /// Whether the attack sees only logits, no gradients.
    fn by_queries(&self) -> bool {
        false
    }

    /// The attack as a sequence of attacks, if it can be interrupted and resumed between two of them.
    fn in_parts(&self) -> Option<&dyn Sequence> {
        None
    }
}

/// Attacks that run one after another on a batch, each on the examples that the ones before left unbroken.
pub trait Sequence: Attack {
    /// Runs the next attack of the sequence on the survivors. False if no attack or no survivor is left.
    fn advance(
        &self,
        probe: &mut Probe<'_>,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
        progress: &mut Progress,
    ) -> Result<bool>;
}
