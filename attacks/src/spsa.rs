//! SPSA, gradient descent with gradients estimated from queries: Uesato et al. 2018, arXiv:1802.05666; the estimate is
//! Spall's, 1992.
//!
//! g = mean_i (m(x′ + δ·uᵢ) − m(x′ − δ·uᵢ)) / 2δ · uᵢ, uᵢ = ±1 in every pixel; x′ ← Π(x′ − Adam(g))
//!
//! Images `[B, C, H, W]` in `[0, 1]`; m = z_y − max_{k≠y} z_k, in logits; Π the projection onto the ball around x cut to
//! `[0, 1]`; δ and Adam's rate in pixel units. It starts at the image. One query is one forward pass of one image: one
//! for the point itself in each step, to see whether it is adversarial, and `samples` for the gradient. An example
//! leaves at its first adversarial point; of a robust example the last point is returned.
//! Deviations from the paper: 128 queries in a step instead of 8192; the probing points are cut to `[0, 1]`, since
//! other images do not exist.

use candle_core::{Result, Tensor};
use models::Classifier;
use random::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ball::{Ball, per_image};
use crate::host::placed;
use crate::losses::margin;
use crate::rows::{replace_rows, select_rows};
use crate::survivors::{Examples, wrong};
use crate::{
    Attack, Batch, BatchNorm, Cost, Description, Invalid, Method, Perturbed, Pixels, Probe, Queries, Setting, Start,
    Threat,
};

/// Gradient descent with gradients estimated from queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spsa {
    /// Steps of Adam; 100.
    #[serde(default = "default_steps")]
    pub steps: u64,
    /// Queries for one estimate of the gradient, two for each direction; 128.
    #[serde(default = "default_samples")]
    pub samples: u64,
    /// δ, how far the probing points lie from the image in every pixel; 0.01.
    #[serde(default = "default_delta")]
    pub delta: Pixels,
    /// Adam's rate: about how far a pixel moves in a step; 0.01.
    #[serde(default = "default_step_size")]
    pub step_size: Pixels,
}

/// Adam's decay of the mean and of the mean square, and its floor.
const DECAYS: (f64, f64) = (0.9, 0.999);
const FLOOR: f64 = 1e-8;

fn default_steps() -> u64 {
    100
}

fn default_samples() -> u64 {
    128
}

fn default_delta() -> Pixels {
    Pixels::new(1, 100)
}

fn default_step_size() -> Pixels {
    Pixels::new(1, 100)
}

impl Default for Spsa {
    fn default() -> Self {
        Self {
            steps: default_steps(),
            samples: default_samples(),
            delta: default_delta(),
            step_size: default_step_size(),
        }
    }
}

impl Method for Spsa {
    const NAME: &'static str = "spsa";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Adam on gradients estimated from queries";
    const SOURCE: &'static str = "Uesato et al. 2018, arXiv:1802.05666";
    const EXAMPLE: &'static str = r#"{"steps": 2, "samples": 16}"#;

    fn resolve(&mut self, _: &Setting) -> std::result::Result<(), Invalid> {
        crate::positive("steps", self.steps)?;
        if self.samples == 0 || !self.samples.is_multiple_of(2) {
            let message = format!(
                "samples is {}; it must be even and at least 2, a pair for each direction",
                self.samples
            );
            return Err(Invalid::new("samples", message));
        }
        for (field, length) in [("delta", self.delta), ("step_size", self.step_size)] {
            if length == Pixels::ZERO {
                let message = format!("{field} is 0; it must be a length, usually 0.01");
                return Err(Invalid::new(field, message));
            }
        }
        Ok(())
    }
}

impl Attack for Spsa {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        let mut probe = Probe::new(classifier, BatchNorm::Eval)?;
        let examples = Examples::new(&mut probe, batch)?;
        let mut queries = Queries::start(batch.ids.len());
        let mut stay = Vec::new();
        for (row, wrong) in wrong(&examples.clean_logits, &batch.labels)?.into_iter().enumerate() {
            if wrong {
                queries[row].until_success = Some(0);
            } else {
                stay.push(row);
            }
        }
        let mut images = examples.batch.images.clone();
        if !stay.is_empty() {
            let mut descent = Descent::begin(&examples.batch.select(&stay)?, stay, threat)?;
            let moves = random.of(Purpose::AttackMove);
            for step in 0..self.steps {
                descent.step(self, &mut probe, step, &moves.at(step), &mut queries)?;
                let fooled = wrong(&probe.logits(&descent.points)?, &descent.batch.labels)?;
                for (&row, fooled) in descent.rows.iter().zip(&fooled) {
                    queries[row].asked += 1;
                    if *fooled {
                        queries[row].until_success = Some(queries[row].asked);
                    }
                }
                images = replace_rows(&images, &descent.rows, &descent.points)?;
                let stay: Vec<usize> = (0..fooled.len()).filter(|&row| !fooled[row]).collect();
                if stay.is_empty() {
                    break;
                }
                if stay.len() < fooled.len() {
                    descent = descent.select(&stay, threat)?;
                }
            }
        }
        Ok(Perturbed {
            queries: Some(queries),
            ..probe.finish(images)?
        })
    }

    fn describe(&self) -> Description {
        Description {
            steps: Some(self.steps),
            step_size: Some(self.step_size),
            restarts: Some(1),
            loss: Some("margin".to_string()),
            start: Some(Start::None.to_string()),
            batch_norm: Some(BatchNorm::Eval.to_string()),
        }
    }

    fn by_queries(&self) -> bool {
        true
    }

    fn ceiling(&self, _: usize) -> Option<Cost> {
        Some(Cost {
            forwards: self.steps * (self.samples + 1) + 1,
            backwards: 0,
        })
    }
}

/// The unbroken examples, and the state of Adam for each.
struct Descent {
    /// Their places in the whole batch.
    rows: Vec<usize>,
    batch: Batch,
    ball: Ball,
    points: Tensor,
    mean: Tensor,
    square: Tensor,
}

impl Descent {
    fn begin(batch: &Batch, rows: Vec<usize>, threat: &Threat) -> Result<Self> {
        Ok(Self {
            rows,
            batch: batch.clone(),
            ball: Ball::new(threat, &batch.images)?,
            points: batch.images.clone(),
            mean: batch.images.zeros_like()?,
            square: batch.images.zeros_like()?,
        })
    }

    fn select(&self, stay: &[usize], threat: &Threat) -> Result<Self> {
        let batch = self.batch.select(stay)?;
        Ok(Self {
            rows: stay.iter().map(|&row| self.rows[row]).collect(),
            ball: Ball::new(threat, &batch.images)?,
            batch,
            points: select_rows(&self.points, stay)?,
            mean: select_rows(&self.mean, stay)?,
            square: select_rows(&self.square, stay)?,
        })
    }

    fn step(
        &mut self,
        attack: &Spsa,
        probe: &mut Probe<'_>,
        step: u64,
        moves: &Stream,
        queries: &mut [Queries],
    ) -> Result<()> {
        let gradient = self.estimate(attack, probe, moves)?;
        for &row in &self.rows {
            queries[row].asked += attack.samples;
        }
        let (first, second) = DECAYS;
        self.mean = ((&self.mean * first)? + (&gradient * (1.0 - first))?)?;
        self.square = ((&self.square * second)? + (gradient.sqr()? * (1.0 - second))?)?;
        let taken = step as i32 + 1;
        let mean = (&self.mean / (1.0 - first.powi(taken)))?;
        let deviation = (&self.square / (1.0 - second.powi(taken)))?.sqrt()?;
        let change = ((mean / (deviation + FLOOR)?)? * attack.step_size.value())?;
        self.points = self.ball.project(&(&self.points - change)?)?;
        Ok(())
    }

    /// g
    fn estimate(&self, attack: &Spsa, probe: &mut Probe<'_>, moves: &Stream) -> Result<Tensor> {
        let (delta, pairs) = (attack.delta.value(), attack.samples / 2);
        let pixels = self.points.elem_count() / self.rows.len();
        let mut gradient = self.points.zeros_like()?;
        let labels = Tensor::cat(&[&self.batch.labels, &self.batch.labels], 0)?;
        for pair in 0..pairs {
            let draws = moves.at(pair).uniform(&self.batch.ids, pixels);
            let signs: Vec<f32> = draws.iter().map(|&draw| if draw < 0.5 { -1.0 } else { 1.0 }).collect();
            let direction = placed(signs, self.points.shape(), &self.points)?;
            let step = (&direction * delta)?;
            let around = Tensor::cat(&[(&self.points + &step)?, (&self.points - &step)?], 0)?;
            let margins = margin(&probe.logits(&around.clamp(0.0, 1.0)?)?, &labels)?.neg()?;
            let examples = self.rows.len();
            let rise = (margins.narrow(0, 0, examples)? - margins.narrow(0, examples, examples)?)?;
            let rise = per_image(&(rise / (2.0 * delta * pairs as f64))?, &self.points)?;
            gradient = (gradient + direction.broadcast_mul(&rise)?)?;
        }
        Ok(gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::setting;
    use crate::{Family, Norm};
    use testing::{Linear, assert_near, tensor};

    #[test]
    fn the_estimate_tends_to_the_gradient() {
        let linear = Linear {
            weight: tensor(&[1.0, -0.5, 0.2, 0.0, 0.3, 0.1], &[2, 3]),
            bias: tensor(&[0.5, 0.0], &[2]),
        };
        let images = tensor(&[0.5, 0.4, 0.6], &[1, 1, 1, 3]);
        let labels = Tensor::new(&[0u32], images.device()).unwrap();
        let batch = Batch {
            images,
            labels,
            ids: vec![3],
        };
        let threat = Threat {
            norm: Norm::Linf,
            epsilon: "0.1".parse().unwrap(),
        };
        let descent = Descent::begin(&batch, vec![0], &threat).unwrap();
        let mut probe = Probe::new(&linear, BatchNorm::Eval).unwrap();
        let attack = Spsa {
            samples: 4000,
            ..Spsa::default()
        };
        let estimate = descent.estimate(&attack, &mut probe, &Stream::new(0)).unwrap();
        // The margin's weights. Each is off by what the other pixels' signs add: 1.1 / √2000 at most in the mean.
        assert_near("estimate", &estimate, &tensor(&[1.0, -0.8, 0.1], &[1, 1, 1, 3]), 0.1);
        assert_eq!(
            probe.cost(),
            Cost {
                forwards: 4000,
                backwards: 0
            }
        );
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let setting = setting(Family::Cifar, Norm::Linf);
        let refuse = |spsa: Spsa, field: &str| {
            assert_eq!(spsa.clone().resolve(&setting).unwrap_err().field, field, "{spsa:?}");
        };
        refuse(
            Spsa {
                steps: 0,
                ..Spsa::default()
            },
            "steps",
        );
        refuse(
            Spsa {
                samples: 7,
                ..Spsa::default()
            },
            "samples",
        );
        refuse(
            Spsa {
                delta: Pixels::ZERO,
                ..Spsa::default()
            },
            "delta",
        );
        refuse(
            Spsa {
                step_size: Pixels::ZERO,
                ..Spsa::default()
            },
            "step_size",
        );
    }
}
