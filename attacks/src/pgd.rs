//! Projected gradient descent: Madry et al. 2018, arXiv:1706.06083.
//!
//! L∞: x′ ← Π(x′ + step · sign ∇L(x′)); L2: x′ ← Π(x′ + step · ∇L / ‖∇L‖₂)
//!
//! Images `[B, C, H, W]` in `[0, 1]`, Π the projection onto the ball around x cut to `[0, 1]`, L any
//! [`Loss`], steps in pixel units. The result is the last point, as in the published code, not the best one.
//!
//! Restarts are independent. An example is broken if any restart breaks it, and the first image to do
//! so is kept; of a robust example, the image of the highest loss.
//!
//! Defaults: the test attack of the MART paper at the usual radii (20 steps of ε/10 on colour images,
//! 40 steps of 0.01 at 0.3 on digits); 10 steps or fewer take ε/4, L2 2.5·ε/steps. The start is not
//! clipped to `[0, 1]`, as in MART's and TRADES's scripts.

use candle_core::{Result, Tensor};
use models::Classifier;
use random::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ball::{Ball, Length};
use crate::rows::select_rows;
use crate::worst::Worst;
use crate::{
    Attack, Batch, BatchNorm, Description, Invalid, Loss, Method, Perturbed, Pixels, Probe, Setting, Start, Threat,
};

/// Projected gradient descent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pgd {
    /// Gradient steps; 20 on colour images, 40 on digits.
    #[serde(default)]
    pub steps: Option<u64>,
    /// The length of a step.
    #[serde(default)]
    pub step_size: Option<Pixels>,
    /// Where it starts.
    #[serde(default)]
    pub start: Start,
    /// Whether the start is brought into the ball and `[0, 1]` before the first gradient.
    #[serde(default)]
    pub clip_start: bool,
    /// The loss ascended.
    #[serde(default)]
    pub loss: Loss,
    /// Independent tries, of which the worst for the network counts.
    #[serde(default = "default_restarts")]
    pub restarts: u64,
    /// The batch-norm mode in which the network is attacked.
    #[serde(default)]
    pub batch_norm: BatchNorm,
}

fn default_restarts() -> u64 {
    1
}

/// A point on the path of an attack.
#[derive(Debug)]
pub struct Iterate<'a> {
    /// Counted from 0.
    pub restart: u64,
    /// 0: the start.
    pub step: u64,
    /// `[B, C, H, W]`, of the examples that are still attacked.
    pub images: &'a Tensor,
}

impl Default for Pgd {
    fn default() -> Self {
        Self {
            steps: None,
            step_size: None,
            start: Start::default(),
            clip_start: false,
            loss: Loss::default(),
            restarts: 1,
            batch_norm: BatchNorm::default(),
        }
    }
}

impl Method for Pgd {
    const NAME: &'static str = "pgd";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "projected gradient descent, with restarts and any loss";
    const SOURCE: &'static str = "Madry et al. 2018, arXiv:1706.06083";
    const EXAMPLE: &'static str = r#"{"steps": 20, "step_size": "0.8/255", "start": "uniform"}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        let steps = *self.steps.get_or_insert(setting.test_steps());
        crate::protocol::positive("steps", steps)?;
        crate::protocol::positive("restarts", self.restarts)?;
        if self.step_size.is_none() {
            self.step_size = Some(setting.step_size(steps)?);
        }
        crate::protocol::check_step_size(self.step_size, setting)?;
        self.loss.check(setting.classes)?;
        self.start.check(setting)?;
        if self.loss == Loss::Kl && self.start == Start::None {
            let message = "at the image itself the kl loss has gradient 0; start from `uniform` or `gaussian`";
            return Err(Invalid::new("start", message));
        }
        Ok(())
    }
}

impl Attack for Pgd {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        self.run(classifier, batch, threat, random, None)
    }

    fn describe(&self) -> Description {
        Description {
            steps: self.steps,
            step_size: self.step_size,
            restarts: Some(self.restarts),
            loss: Some(self.loss.to_string()),
            start: Some(self.start.to_string()),
            batch_norm: Some(self.batch_norm.to_string()),
        }
    }
}

impl Pgd {
    /// As [`Attack::perturb`]; `observe` sees every point on the path.
    pub fn trace(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
        observe: &mut dyn FnMut(Iterate<'_>) -> Result<()>,
    ) -> Result<Perturbed> {
        self.run(classifier, batch, threat, random, Some(observe))
    }

    fn run(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
        mut watch: Option<Watch<'_>>,
    ) -> Result<Perturbed> {
        let mut probe = Probe::new(classifier, self.batch_norm)?;
        let clean_logits = probe.clean_logits(&self.loss, &batch.images)?;
        let mut worst = Worst::new(&batch.images);
        for restart in 0..self.restarts {
            // A broken example stays broken and is left out, unless that would change the others.
            let companions_matter = self.loss.depends_on_batch() || self.batch_norm != BatchNorm::Eval;
            let rows = if companions_matter {
                worst.all()
            } else {
                worst.unbroken()
            };
            if rows.is_empty() {
                break;
            }
            let part = Part::new(batch, clean_logits.as_ref(), &rows)?;
            let draws = random.of(Purpose::AttackStart).at(restart);
            let images = match &mut watch {
                Some(watch) => {
                    let observe: Observe<'_> = &mut |step, images| watch(Iterate { restart, step, images });
                    self.ascend(&mut probe, &part, threat, &draws, Some(observe))?
                }
                None => self.ascend(&mut probe, &part, threat, &draws, None)?,
            };
            worst.stalled(&rows, &probe.take_stalled()?);
            if self.restarts == 1 {
                worst.images = images;
                break;
            }
            let logits = probe.logits(&images)?;
            let losses = self
                .ranking_loss()
                .per_example(&logits, &part.batch.labels, part.clean_logits.as_ref())?;
            worst.offer(&rows, &images, &logits, &losses, &part.batch.labels)?;
        }
        Ok(Perturbed {
            zero_gradients: worst.stalls(),
            images: worst.images,
            cost: probe.cost(),
            queries: None,
        })
    }

    /// One restart.
    fn ascend(
        &self,
        probe: &mut Probe<'_>,
        part: &Part,
        threat: &Threat,
        random: &Stream,
        observe: Option<Observe<'_>>,
    ) -> Result<Tensor> {
        let (Some(steps), Some(step_size)) = (self.steps, self.step_size) else {
            candle_core::bail!("pgd: steps and step_size are open; resolve the configuration first");
        };
        let Part { batch, clean_logits } = part;
        let ball = Ball::new(threat, &batch.images)?;
        let length = Length::Same(step_size.value());
        let mut images = self.start.points(&ball, &batch.ids, random)?;
        if self.clip_start {
            images = ball.project(&images)?;
        }
        let Some(observe) = observe else {
            return self.ascend_unobserved(probe, part, &ball, images, (steps, step_size.value()));
        };
        observe(0, &images)?;
        for step in 1..=steps {
            let slope = probe.slope(&images, |logits| {
                self.loss.per_example(logits, &batch.labels, clean_logits.as_ref())
            })?;
            images = ball.ascend(&images, &slope.gradient, &length)?;
            observe(step, &images)?;
        }
        Ok(images)
    }

    /// The steps of one restart without an observer: all at once if the classifier can.
    fn ascend_unobserved(
        &self,
        probe: &mut Probe<'_>,
        part: &Part,
        ball: &Ball,
        mut images: Tensor,
        (steps, step_size): (u64, f64),
    ) -> Result<Tensor> {
        let Part { batch, clean_logits } = part;
        let clean_logits = clean_logits.as_ref();
        let loss = (&self.loss, clean_logits);
        if let Some(images) = probe.ascend(ball, &images, &batch.labels, loss, (step_size, steps))? {
            return Ok(images);
        }
        let length = Length::Same(step_size);
        for _ in 0..steps {
            let slope = probe.slope(&images, |logits| {
                self.loss.per_example(logits, &batch.labels, clean_logits)
            })?;
            images = ball.ascend(&images, &slope.gradient, &length)?;
        }
        Ok(images)
    }

    /// The loss by which restarts are compared: the attack's, if it is defined for one example.
    fn ranking_loss(&self) -> Loss {
        if self.loss.depends_on_batch() {
            Loss::Margin
        } else {
            self.loss
        }
    }
}

/// Sees every point on the path.
type Watch<'a> = &'a mut dyn FnMut(Iterate<'_>) -> Result<()>;
/// Sees the images after each step, counted from 1; 0 is the start.
type Observe<'a> = &'a mut dyn FnMut(u64, &Tensor) -> Result<()>;

/// The examples that a restart attacks.
struct Part {
    batch: Batch,
    clean_logits: Option<Tensor>,
}

impl Part {
    fn new(batch: &Batch, clean_logits: Option<&Tensor>, rows: &[usize]) -> Result<Self> {
        if rows.len() == batch.ids.len() {
            return Ok(Self {
                batch: batch.clone(),
                clean_logits: clean_logits.cloned(),
            });
        }
        Ok(Self {
            batch: batch.select(rows)?,
            clean_logits: clean_logits.map(|logits| select_rows(logits, rows)).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests;
