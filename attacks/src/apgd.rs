//! Auto-PGD: Croce and Hein 2020, arXiv:2003.01690, as in fra31/auto-attack (a392200).
//!
//! w = Π(v + s · sign ∇L(v)); v′ = Π(v + a·(w − v) + (1 − a)·(v − v₋)), a = 1 in the first step, then ¾
//!
//! Images `[B, C, H, W]` in `[0, 1]`, L any [`Loss`] that is defined for one example, v₋ the point before v; L2:
//! ∇L / ‖∇L‖₂ for the sign. It starts on the ball's boundary, at x + ε·t/‖t‖ with t uniform in `[−1, 1)` (L2: normal),
//! with steps of s = 2ε. Π under L2 shrinks to the ball first and cuts to `[0, 1]` then, unlike [`crate::ball`].
//!
//! At checkpoints each example's step is halved, and the example goes back to its best point, if the loss rose in
//! at most ρ of the steps since the last checkpoint, or if at the last one the step stayed and the best loss has not
//! risen since. The distance of checkpoints is 0.22·N steps at first, then 0.03·N less each time, at least 0.06·N.
//! At the first one the code compares the first loss with a 0 of its still empty history; so do we.
//!
//! Only examples that are classified correctly are attacked, and by restarts only the unbroken ones. The result
//! is the last adversarial point of a broken example and the clean image of a robust one; `keep: highest-loss`
//! gives every example's point of highest loss instead, for transfer attacks.
//!
//! Deviations: the draws follow the example; the clean images are classified once, not once per attack.

mod schedule;

use candle_core::{Result, Tensor};
use models::Classifier;
use random::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::schedule::Schedule;
use crate::ball::{Ball, Length, l2_norms, per_image};
use crate::host::placed;
use crate::survivors::{Draws, Examples, Survivors, choose, each, numbers, wrong};
use crate::{
    Attack, Batch, BatchNorm, Cost, Description, Invalid, Loss, Method, Norm, Perturbed, Probe, Setting, Start, Threat,
};

/// Auto-PGD.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apgd {
    /// N, gradient steps of one restart; 100.
    #[serde(default = "default_steps")]
    pub steps: u64,
    /// Independent tries; 1.
    #[serde(default = "default_restarts")]
    pub restarts: u64,
    /// The loss ascended: `cross-entropy` for APGD-CE, `dlr` for APGD-DLR.
    #[serde(default)]
    pub loss: Loss,
    /// ρ, the share of steps that must raise the loss for the step to stay as long as it is; 0.75.
    #[serde(default = "default_rho")]
    pub rho: f64,
    /// Which points are returned.
    #[serde(default)]
    pub keep: Keep,
}

/// Which points Auto-PGD returns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The last adversarial point; the clean image if there is none.
    #[default]
    Adversarial,
    /// The point of highest loss. Every example is attacked in every restart, misclassified ones too.
    HighestLoss,
}

/// Sees the points `[B, C, H, W]`, the start first, and the step of each example by which they were reached.
type Observe<'a> = &'a mut dyn FnMut(&Tensor, &[f64]) -> Result<()>;

/// The share of a step in the next point; the rest repeats the last change.
const MOMENTUM: f64 = 0.75;
/// Keeps quotients of norms finite.
const TINY: f64 = 1e-12;

fn default_steps() -> u64 {
    100
}

fn default_restarts() -> u64 {
    1
}

fn default_rho() -> f64 {
    0.75
}

impl Default for Apgd {
    fn default() -> Self {
        Self {
            steps: default_steps(),
            restarts: default_restarts(),
            loss: Loss::default(),
            rho: default_rho(),
            keep: Keep::default(),
        }
    }
}

impl Method for Apgd {
    const NAME: &'static str = "apgd";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "PGD with momentum that chooses its step sizes itself: APGD-CE, APGD-DLR";
    const SOURCE: &'static str = "Croce and Hein 2020, arXiv:2003.01690";
    const EXAMPLE: &'static str = r#"{"steps": 100, "loss": "dlr"}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        crate::positive("steps", self.steps)?;
        crate::positive("restarts", self.restarts)?;
        check_rho(self.rho)?;
        if self.loss.depends_on_batch() {
            return Err(Invalid::new(
                "loss",
                format!(
                    "{} mixes the examples of a batch, and apgd follows each one's loss; use pgd",
                    self.loss
                ),
            ));
        }
        self.loss.check(setting.classes)
    }
}

/// Refuses a ρ outside `[0, 1]`.
pub(crate) fn check_rho(rho: f64) -> std::result::Result<(), Invalid> {
    if (0.0..=1.0).contains(&rho) {
        return Ok(());
    }
    Err(Invalid::new(
        "rho",
        format!("rho is {rho}; it must be a share between 0 and 1, usually 0.75"),
    ))
}

impl Attack for Apgd {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        match self.keep {
            Keep::Adversarial => crate::survivors::perturb(classifier, batch, |probe, examples, survivors| {
                self.take(probe, examples, threat, random, survivors)
            }),
            Keep::HighestLoss => self.highest(classifier, batch, threat, random),
        }
    }

    fn describe(&self) -> Description {
        Description {
            steps: Some(self.steps),
            step_size: None,
            restarts: Some(self.restarts),
            loss: Some(self.loss.to_string()),
            start: Some(Start::Uniform.to_string()),
            batch_norm: Some(BatchNorm::Eval.to_string()),
        }
    }

    fn ceiling(&self, _: usize) -> Option<Cost> {
        let runs = self.restarts * (self.steps + 1);
        Some(Cost {
            forwards: runs + u64::from(self.keep == Keep::Adversarial || self.loss.needs_clean()),
            backwards: runs,
        })
    }
}

impl Apgd {
    /// Attacks the survivors and removes those that it breaks.
    pub(crate) fn take(
        &self,
        probe: &mut Probe<'_>,
        examples: &Examples,
        threat: &Threat,
        random: &Stream,
        survivors: &mut Survivors,
    ) -> Result<()> {
        let draws = random.of(Purpose::AttackStart);
        for restart in 0..self.restarts {
            self.run(
                probe,
                examples,
                threat,
                self.loss,
                restart,
                &draws,
                survivors,
                &mut |_, _| Ok(()),
            )?;
        }
        Ok(())
    }

    /// One restart on the survivors.
    #[expect(clippy::too_many_arguments, reason = "each is an input of the method")]
    pub(crate) fn run(
        &self,
        probe: &mut Probe<'_>,
        examples: &Examples,
        threat: &Threat,
        loss: Loss,
        run: u64,
        draws: &dyn Draws,
        survivors: &mut Survivors,
        observe: Observe<'_>,
    ) -> Result<Option<Climb>> {
        let rows = survivors.rows();
        if rows.is_empty() {
            return Ok(None);
        }
        let part = examples.select(&rows)?;
        let climb = self.climb(probe, &part, threat, loss, run, draws, observe)?;
        survivors.note_stalls(&rows, probe)?;
        survivors.take(&rows, &climb.broken, &climb.adversarial)?;
        Ok(Some(climb))
    }

    /// One restart on every one of `examples`.
    #[expect(clippy::too_many_arguments, reason = "each is an input of the method")]
    fn climb(
        &self,
        probe: &mut Probe<'_>,
        examples: &Examples,
        threat: &Threat,
        loss: Loss,
        run: u64,
        draws: &dyn Draws,
        observe: Observe<'_>,
    ) -> Result<Climb> {
        let Examples { batch, clean_logits } = examples;
        let slope_at = |probe: &mut Probe<'_>, points: &Tensor| {
            probe.slope(points, |logits| {
                loss.per_example(logits, &batch.labels, Some(clean_logits))
            })
        };
        let ball = Ball::new(threat, &batch.images)?;
        let mut points = boundary(&ball, &batch.ids, run, draws)?;
        let mut slope = slope_at(probe, &points)?;
        let mut schedule = Schedule::new(
            self.steps,
            self.rho,
            2.0 * threat.epsilon.value(),
            numbers(&slope.losses)?,
        );
        observe(&points, &schedule.step_sizes)?;
        let mut climb = Climb {
            broken: wrong(&slope.logits, &batch.labels)?,
            adversarial: points.clone(),
            best: points.clone(),
            best_losses: Vec::new(),
        };
        let mut best_gradient = slope.gradient.clone();
        let mut before = points.clone();
        for step in 0..self.steps {
            let change = (&points - &before)?;
            let share = if step == 0 { 1.0 } else { MOMENTUM };
            let lengths = each(&schedule.step_sizes, &points)?;
            let next = advance(&ball, &points, &slope.gradient, lengths, &change, share)?;
            before = std::mem::replace(&mut points, next);
            slope = slope_at(probe, &points)?;
            observe(&points, &schedule.step_sizes)?;

            let fooled = wrong(&slope.logits, &batch.labels)?;
            climb.adversarial = choose(&fooled, &points, &climb.adversarial)?;
            for (broken, fooled) in climb.broken.iter_mut().zip(fooled) {
                *broken |= fooled;
            }
            let (better, halved) = schedule.note(step as usize, &numbers(&slope.losses)?);
            climb.best = choose(&better, &points, &climb.best)?;
            best_gradient = choose(&better, &slope.gradient, &best_gradient)?;
            points = choose(&halved, &climb.best, &points)?;
            slope.gradient = choose(&halved, &best_gradient, &slope.gradient)?;
        }
        climb.best_losses = schedule.best;
        Ok(climb)
    }

    /// Every restart on every example; of each the point of highest loss.
    fn highest(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        let mut probe = Probe::new(classifier, BatchNorm::Eval)?;
        let images = batch.images.detach();
        let clean_logits = match probe.clean_logits(&self.loss, &images)? {
            Some(logits) => logits,
            // Not read by this loss.
            None => images.flatten_from(1)?,
        };
        let batch = Batch {
            images,
            ..batch.clone()
        };
        let examples = Examples { batch, clean_logits };
        let draws = random.of(Purpose::AttackStart);
        let mut highest: Option<Climb> = None;
        for restart in 0..self.restarts {
            let climb = self.climb(
                &mut probe,
                &examples,
                threat,
                self.loss,
                restart,
                &draws,
                &mut |_, _| Ok(()),
            )?;
            highest = Some(match highest {
                None => climb,
                Some(highest) => highest.or_higher(climb)?,
            });
        }
        let images = highest.map_or(examples.batch.images, |climb| climb.best);
        probe.finish(images)
    }
}

/// What one restart found.
#[derive(Debug)]
pub(crate) struct Climb {
    /// Whether any point was misclassified.
    pub(crate) broken: Vec<bool>,
    /// The last such point; the start where there is none.
    pub(crate) adversarial: Tensor,
    /// The point of highest loss.
    pub(crate) best: Tensor,
    /// Its loss.
    pub(crate) best_losses: Vec<f64>,
}

impl Climb {
    fn or_higher(self, other: Self) -> Result<Self> {
        let pairs = self.best_losses.iter().zip(&other.best_losses);
        let higher: Vec<bool> = pairs.clone().map(|(mine, theirs)| theirs > mine).collect();
        Ok(Self {
            best: choose(&higher, &other.best, &self.best)?,
            best_losses: pairs.map(|(mine, theirs)| mine.max(*theirs)).collect(),
            ..other
        })
    }
}

/// x + ε·t/‖t‖, cut to `[0, 1]`.
fn boundary(ball: &Ball, ids: &[u64], run: u64, draws: &dyn Draws) -> Result<Tensor> {
    let images = ball.centre();
    let pixels = images.elem_count() / images.dim(0)?.max(1);
    let tensor = |draws: Vec<f32>| placed(draws, images.shape(), images);
    let (directions, lengths) = match ball.norm() {
        Norm::Linf => {
            let directions = ((tensor(draws.uniform(run, ids, pixels))? * 2.0)? - 1.0)?;
            let lengths = per_image(&directions.flatten_from(1)?.abs()?.max(1)?, images)?;
            (directions, lengths)
        }
        Norm::L2 => {
            let directions = tensor(draws.normal(run, ids, pixels))?;
            let lengths = l2_norms(&directions)?;
            (directions, lengths)
        }
    };
    let units = directions.broadcast_div(&(lengths + TINY)?)?;
    (images + units.broadcast_mul(ball.radii())?)?.clamp(0.0, 1.0)
}

/// The next point: a step of `lengths` `[B, 1, 1, 1]`, of which `share` counts, and of the last change the rest.
fn advance(
    ball: &Ball,
    points: &Tensor,
    gradient: &Tensor,
    lengths: Tensor,
    change: &Tensor,
    share: f64,
) -> Result<Tensor> {
    let mix = |stepped: &Tensor| (points + ((stepped - points)? * share)?)? + (change * (1.0 - share))?;
    match ball.norm() {
        Norm::Linf => {
            let stepped = ball.ascend(points, gradient, &Length::Each(lengths))?;
            ball.project(&mix(&stepped)?)
        }
        Norm::L2 => {
            let units = gradient.broadcast_div(&(l2_norms(gradient)? + TINY)?)?;
            let stepped = shrink(ball, &(points + units.broadcast_mul(&lengths)?)?)?;
            shrink(ball, &mix(&stepped)?)
        }
    }
}

/// Shrunk to the L2 ball, then cut to `[0, 1]`.
fn shrink(ball: &Ball, points: &Tensor) -> Result<Tensor> {
    let change = (points - ball.centre())?;
    let norms = l2_norms(&change)?;
    let factor = (norms.minimum(ball.radii())? / (&norms + TINY)?)?;
    (ball.centre() + change.broadcast_mul(&factor)?)?.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;
    use crate::fixtures::setting;

    #[test]
    fn values_that_cannot_be_are_refused() {
        let setting = setting(Family::Cifar, Norm::Linf);
        let refuse = |apgd: Apgd, field: &str| {
            assert_eq!(apgd.clone().resolve(&setting).unwrap_err().field, field, "{apgd:?}");
        };
        refuse(
            Apgd {
                steps: 0,
                ..Apgd::default()
            },
            "steps",
        );
        refuse(
            Apgd {
                restarts: 0,
                ..Apgd::default()
            },
            "restarts",
        );
        refuse(
            Apgd {
                rho: 1.5,
                ..Apgd::default()
            },
            "rho",
        );
        refuse(
            Apgd {
                loss: Loss::CwBatchSum,
                ..Apgd::default()
            },
            "loss",
        );
    }
}
