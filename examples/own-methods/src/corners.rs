//! Random corners of the ball: of all tries, keep the one with the highest loss. Uses no gradient.
//!
//! x′ = argmax over t of CE(f(Π(x + ε · sₜ)), y), sₜ uniform in {−1, 1}^(C·H·W)
//!
//! Images `[B, C, H, W]` in `[0, 1]`, Π clips to `[0, 1]`. L∞ only. A network that this attack breaks and PGD does not
//! masks its gradients.

use attacks::losses::cross_entropy;
use attacks::{
    Attack, Batch, BatchNorm, Description, Invalid, Loss, Method, Norm, Perturbed, Probe, Setting, Threat,
    replace_rows, select_rows,
};
use candle_core::{Result, Tensor};
use models::Classifier;
use random::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The attack and its fields in a matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Corners {
    /// The number of corners to try.
    #[serde(default = "default_tries")]
    pub(crate) tries: u64,
}

fn default_tries() -> u64 {
    50
}

impl Method for Corners {
    const NAME: &'static str = "corners";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "the worst of some random corners of the ball";
    const SOURCE: &'static str = "this example";
    const EXAMPLE: &'static str = r#"{"tries": 50}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        if self.tries == 0 {
            return Err(Invalid::new("tries", "must be at least 1"));
        }
        match setting.threat.norm {
            Norm::Linf => Ok(()),
            norm => Err(Invalid::new(
                "",
                format!("a ball of norm {norm} has no corners; use linf"),
            )),
        }
    }
}

impl Attack for Corners {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        // Counts passes, and uses the frozen network.
        let mut probe = Probe::new(classifier, BatchNorm::Eval)?;
        let pixels = batch.images.elem_count() / batch.ids.len();
        let mut images = batch.images.detach();
        let mut worst = vec![f32::NEG_INFINITY; batch.ids.len()];
        for attempt in 0..self.tries {
            // A draw is a function of seed, purpose, try and example, never of the batch.
            let draws = random.of(Purpose::AttackStart).at(attempt).uniform(&batch.ids, pixels);
            let signs: Vec<f32> = draws.iter().map(|&draw| if draw < 0.5 { -1.0 } else { 1.0 }).collect();
            let signs = Tensor::from_vec(signs, batch.images.shape(), batch.images.device())?;
            let corner = (&batch.images + (signs * threat.epsilon.value())?)?.clamp(0.0, 1.0)?;
            let losses = cross_entropy(&probe.logits(&corner)?, &batch.labels)?.to_vec1::<f32>()?;
            let higher: Vec<usize> = (0..losses.len()).filter(|&row| losses[row] > worst[row]).collect();
            if !higher.is_empty() {
                images = replace_rows(&images, &higher, &select_rows(&corner, &higher)?)?;
            }
            for row in higher {
                worst[row] = losses[row];
            }
        }
        probe.finish(images)
    }

    fn describe(&self) -> Description {
        Description {
            steps: Some(1),
            restarts: Some(self.tries),
            loss: Some(Loss::CrossEntropy.to_string()),
            ..Description::default()
        }
    }
}
