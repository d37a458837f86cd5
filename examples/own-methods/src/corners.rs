//! Random corners of the ball: of so many tries the one with the highest loss, without a gradient.
//!
//! x′ = argmax over t of CE(f(Π(x + ε · sₜ)), y), sₜ uniform in {−1, 1}^(C·H·W)
//!
//! Images `[B, C, H, W]` in `[0, 1]`, Π cuts to `[0, 1]`. L∞ only. A network that falls to this and not to PGD hides
//! its gradients.

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

/// The attack, and what a matrix says beside its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Corners {
    /// How many corners are tried.
    #[serde(default = "many")]
    pub(crate) tries: u64,
}

fn many() -> u64 {
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
            return Err(Invalid::new("tries", "0 tries find nothing; write 1 or more"));
        }
        match setting.threat.norm {
            Norm::Linf => Ok(()),
            norm => Err(Invalid::new("", format!("a ball of norm {norm} has no corners"))),
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
        // Counts passes, and takes the network's frozen form.
        let mut probe = Probe::new(classifier, BatchNorm::Eval)?;
        let pixels = batch.images.elem_count() / batch.ids.len();
        let mut images = batch.images.detach();
        let mut worst = vec![f32::NEG_INFINITY; batch.ids.len()];
        for attempt in 0..self.tries {
            // A draw is a function of seed, purpose, try and example: never of the batch it comes in.
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
