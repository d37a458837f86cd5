//! The classifier as an attack uses it: every pass counted, gradients to the images only.

use candle_core::{DType, Result, Tensor, Var};
use kernels::ascent::{Ascended, Ascent};
use models::{Classifier, Mode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ball::{Ball, l1_norms};
use crate::{Cost, Loss, Norm, Perturbed};

/// The batch-norm mode in which a network is attacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNorm {
    /// Running statistics: the network as it will be used.
    #[default]
    Eval,
    /// The batch's own statistics, so that images depend on their companions; running statistics stay as
    /// they are.
    BatchStatistics,
    /// The batch's own statistics, and running statistics learn from the attack's images.
    Train,
}

impl std::fmt::Display for BatchNorm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Eval => "eval",
            Self::BatchStatistics => "batch-statistics",
            Self::Train => "train",
        })
    }
}

impl BatchNorm {
    fn mode(self) -> Mode<'static> {
        match self {
            Self::Eval => Mode::Eval,
            Self::BatchStatistics => Mode::BatchStatistics,
            Self::Train => Mode::Train(None),
        }
    }
}

/// A classifier under attack.
pub struct Probe<'a> {
    classifier: &'a dyn Classifier,
    frozen: Option<Box<dyn Classifier>>,
    batch_norm: BatchNorm,
    cost: Cost,
    /// 1 where an image has met a gradient of zeros: `[B]`.
    stalled: Option<Tensor>,
}

/// The loss and its gradient at some images.
#[derive(Debug, Clone)]
pub struct Slope {
    /// `[B, K]`, detached.
    pub logits: Tensor,
    /// `[B]`, detached.
    pub losses: Tensor,
    /// Of the sum of the losses, `[B, C, H, W]`.
    pub gradient: Tensor,
}

impl<'a> Probe<'a> {
    /// Takes the frozen form of the classifier where the mode allows it.
    pub fn new(classifier: &'a dyn Classifier, batch_norm: BatchNorm) -> Result<Self> {
        let frozen = match batch_norm {
            BatchNorm::Eval => classifier.freeze()?,
            BatchNorm::BatchStatistics | BatchNorm::Train => None,
        };
        Ok(Self {
            classifier,
            frozen,
            batch_norm,
            cost: Cost::default(),
            stalled: None,
        })
    }

    /// Logits `[B, K]`, detached.
    pub fn logits(&mut self, images: &Tensor) -> Result<Tensor> {
        self.cost.forwards += images.dim(0)? as u64;
        Ok(self.forward(&images.detach())?.detach())
    }

    /// The logits of the unperturbed images, if the loss needs them.
    pub fn clean_logits(&mut self, loss: &Loss, images: &Tensor) -> Result<Option<Tensor>> {
        loss.needs_clean().then(|| self.logits(images)).transpose()
    }

    /// The losses (a function of the logits, one per example) and the gradient of their sum.
    pub fn slope(&mut self, images: &Tensor, losses: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Slope> {
        let variable = Var::from_tensor(&images.detach())?;
        let logits = self.forward(variable.as_tensor())?;
        let losses = losses(&logits)?;
        let gradient = losses.sum_all()?.backward()?.remove(&variable);
        let gradient = match gradient {
            Some(gradient) => gradient.detach(),
            None => candle_core::bail!("the classifier's logits do not depend on its images through autograd"),
        };
        let examples = images.dim(0)? as u64;
        self.cost.forwards += examples;
        self.cost.backwards += examples;
        let norms = l1_norms(&gradient)?.flatten_all()?;
        let stalls = norms.eq(&norms.zeros_like()?)?.to_dtype(DType::F32)?;
        self.note_stalled(stalls)?;
        Ok(Slope {
            logits: logits.detach(),
            losses: losses.detach(),
            gradient,
        })
    }

    /// The logits `[B, K]` and the gradient of the sum of each class's logits, `[B, C, H, W]`, K of them: one forward
    /// and K backward passes.
    pub fn jacobian(&mut self, images: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        let variable = Var::from_tensor(&images.detach())?;
        let logits = self.forward(variable.as_tensor())?;
        let examples = images.dim(0)? as u64;
        self.cost.forwards += examples;
        let mut gradients = Vec::with_capacity(logits.dim(1)?);
        for class in 0..logits.dim(1)? {
            let gradient = logits.narrow(1, class, 1)?.sum_all()?.backward()?.remove(&variable);
            let Some(gradient) = gradient else {
                candle_core::bail!("the classifier's logits do not depend on its images through autograd");
            };
            self.cost.backwards += examples;
            gradients.push(gradient.detach());
        }
        Ok((logits.detach(), gradients))
    }

    /// Steps of length `step` under L∞, from `start`, all at once if the classifier can; else `None`.
    pub fn ascend(
        &mut self,
        ball: &Ball,
        start: &Tensor,
        labels: &Tensor,
        (loss, clean_logits): (&Loss, Option<&Tensor>),
        (step, steps): (f64, u64),
    ) -> Result<Option<Tensor>> {
        let (BatchNorm::Eval, Some(loss), Norm::Linf) = (self.batch_norm, loss.fused(), ball.norm()) else {
            return Ok(None);
        };
        let [lower, upper] = ball.bounds();
        // A classifier that is frozen already has no frozen form and is used itself.
        let classifier = self.frozen.as_deref().unwrap_or(self.classifier);
        let ascended = classifier.ascend(&Ascent {
            start,
            lower,
            upper,
            labels,
            clean_logits,
            loss,
            step,
            steps,
        })?;
        let Some(Ascended { images, stalled }) = ascended else {
            return Ok(None);
        };
        let passes = images.dim(0)? as u64 * steps;
        self.cost += Cost {
            forwards: passes,
            backwards: passes,
        };
        self.note_stalled(stalled)?;
        Ok(Some(images))
    }

    fn note_stalled(&mut self, now: Tensor) -> Result<()> {
        self.stalled = Some(match self.stalled.take() {
            Some(before) => before.maximum(&now)?,
            None => now,
        });
        Ok(())
    }

    /// Passes so far.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Which images have met a gradient of zeros since the last call.
    pub fn take_stalled(&mut self) -> Result<Vec<bool>> {
        match self.stalled.take() {
            Some(stalled) => Ok(stalled.to_vec1::<f32>()?.into_iter().map(|flag| flag > 0.0).collect()),
            None => Ok(Vec::new()),
        }
    }

    /// The attack's result, with what it cost.
    pub fn finish(mut self, images: Tensor) -> Result<Perturbed> {
        let stalled = self.take_stalled()?;
        Ok(Perturbed {
            images,
            cost: self.cost,
            zero_gradients: stalled.iter().filter(|&&stalled| stalled).count() as u64,
            queries: None,
        })
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.frozen
            .as_deref()
            .unwrap_or(self.classifier)
            .logits(images, self.batch_norm.mode())
    }
}
