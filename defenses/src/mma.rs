//! MMA, max-margin adversarial training: Ding et al. 2020, arXiv:1812.02637.
//!
//! loss = (1 − c) · (1/B) Σ_i kept_i · CE(f(x′_i), y_i) + c · mean_B CE(f(x), y)
//!
//! Correct images (p_y > ½ in the clean pass) are moved to the decision boundary: x′ is AN-PGD's point at
//! distance ε_i. Wrong ones stay: x′ = x. kept_i = 1 for wrong images and where ε_i < d_max; an example that
//! is already farther than d_max from the boundary adds nothing. ε_i is remembered and starts the example's
//! next search; wrong examples remember 0.
//!
//! Images `[B, C, H, W]` in `[0, 1]`; logits `[B, K]`; radii in pixel units; result: scalar, nats.
//! Training passes as in BorealisAI/mma_training (328e2e5): x; then the search, `search_steps + 1` passes of
//! the correct images; then x′. The gradient steps of AN-PGD see evaluation statistics. c = 0 is the authors'
//! OMMA. The threat model gives the norm only: its radius plays no part but in defaults.
//! Table 1 of the MART paper shows a simplification without radii, hinge and clean term.

use attacks::losses::{cross_entropy, soft_margin};
use attacks::{AnPgd, BatchNorm, Family, Invalid, Method, Norm, Pixels, Setting, replace_rows};
use candle_core::{DType, Device, Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Augmentation, Decay, Defense, Length, Memory, Optimizer, Recipe, Schedule, Step};

/// The column of [`Memory`] that holds the radii.
const RADIUS: &str = "radius";

/// Max-margin adversarial training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mma {
    /// Margins beyond it are large enough. The authors take 12/255, 20/255 or 32/255 on CIFAR-10 and 0.45 on
    /// MNIST; 4ε, which is 32/255 at 8/255, and 1.5ε on digits; L2 2ε.
    #[serde(default)]
    pub d_max: Option<Pixels>,
    /// The smallest radius from which a search starts; 0.005, on digits ε/3 (0.1 at 0.3), L2 ε/10; never above
    /// d_max.
    #[serde(default)]
    pub min_radius: Option<Pixels>,
    /// Gradient steps of AN-PGD; 10, on digits 40.
    #[serde(default)]
    pub steps: Option<u64>,
    /// All gradient steps together, in radii; 2.5.
    #[serde(default = "default_reach")]
    pub reach: f64,
    /// Bisections of the search; 10.
    #[serde(default = "default_search_steps")]
    pub search_steps: u64,
    /// c, the weight of the clean term; ⅓.
    #[serde(default = "default_clean_weight")]
    pub clean_weight: f64,
    /// The batch-norm mode of AN-PGD's gradient steps.
    #[serde(default)]
    pub batch_norm: BatchNorm,
}

fn default_reach() -> f64 {
    2.5
}

fn default_search_steps() -> u64 {
    10
}

fn default_clean_weight() -> f64 {
    1.0 / 3.0
}

impl Default for Mma {
    fn default() -> Self {
        Self {
            d_max: None,
            min_radius: None,
            steps: None,
            reach: default_reach(),
            search_steps: default_search_steps(),
            clean_weight: default_clean_weight(),
            batch_norm: BatchNorm::default(),
        }
    }
}

impl Method for Mma {
    const NAME: &'static str = "mma";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "max-margin training: cross entropy at each example's own decision boundary";
    const SOURCE: &'static str = "Ding et al. 2020, arXiv:1812.02637";
    const EXAMPLE: &'static str = r#"{"d_max": "32/255"}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        let threat = &setting.threat;
        let usual = match (threat.norm, setting.family) {
            (Norm::L2, _) => threat.epsilon.checked_times(2, 1),
            (Norm::Linf, Family::Cifar) => threat.epsilon.checked_times(4, 1),
            (Norm::Linf, Family::Mnist) => threat.epsilon.checked_times(3, 2),
        };
        let smallest = match (threat.norm, setting.family) {
            (Norm::L2, _) => threat.epsilon.checked_times(1, 10),
            (Norm::Linf, Family::Cifar) => Some(Pixels::new(5, 1000)),
            (Norm::Linf, Family::Mnist) => threat.epsilon.checked_times(1, 3),
        };
        self.d_max = self.d_max.or(usual);
        let smallest = smallest.map(|radius| self.d_max.map_or(radius, |d_max| radius.min(d_max)));
        self.min_radius = self.min_radius.or(smallest);
        let (Some(d_max), Some(min_radius)) = (self.d_max, self.min_radius) else {
            let message = format!(
                "no exact default follows from a radius of {}; write one",
                threat.epsilon
            );
            return Err(Invalid::new("d_max", message));
        };
        if min_radius == Pixels::ZERO || min_radius > d_max {
            let message = format!("min_radius is {min_radius}; it must be above 0 and at most d_max, {d_max}");
            return Err(Invalid::new("min_radius", message));
        }
        let usual_steps = if setting.family == Family::Mnist { 40 } else { 10 };
        attacks::positive("steps", *self.steps.get_or_insert(usual_steps))?;
        if !(self.reach.is_finite() && self.reach > 0.0) {
            return Err(Invalid::new(
                "reach",
                format!("reach is {}; it must be above 0, usually 2.5", self.reach),
            ));
        }
        if !(0.0..=1.0).contains(&self.clean_weight) {
            let message = format!("clean_weight is {}; it must be in [0, 1]", self.clean_weight);
            return Err(Invalid::new("clean_weight", message));
        }
        Ok(())
    }
}

/// The two terms of MMA's loss, scalars.
#[derive(Debug, Clone)]
pub struct MmaLoss {
    /// (1/B) Σ_i kept_i · CE(f(x′_i), y_i).
    pub margin: Tensor,
    /// mean_B CE(f(x), y).
    pub clean: Tensor,
    /// (1 − c) · margin + c · clean.
    pub total: Tensor,
}

impl Mma {
    /// The loss from both passes. `correct` and `radii` `[B]`: which images were correct, and their ε. `mean` makes a
    /// scalar of one loss per example.
    pub fn loss(
        &self,
        clean: &Tensor,
        second: &Tensor,
        labels: &Tensor,
        correct: &[bool],
        radii: &[f64],
        mut mean: impl FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<MmaLoss> {
        let d_max = crate::fields::resolved("d_max", self.d_max)?.value();
        let kept = correct
            .iter()
            .zip(radii)
            .map(|(&correct, &radius)| f64::from(u8::from(!correct || radius < d_max)));
        let kept = Tensor::new(kept.collect::<Vec<_>>(), labels.device())?.to_dtype(second.dtype())?;
        let margin = mean(&(cross_entropy(second, labels)? * kept)?)?;
        let clean = mean(&cross_entropy(clean, labels)?)?;
        let total = ((&margin * (1.0 - self.clean_weight))? + (&clean * self.clean_weight)?)?;
        Ok(MmaLoss { margin, clean, total })
    }

    fn attack(&self) -> Result<AnPgd> {
        Ok(AnPgd {
            steps: crate::fields::resolved("steps", self.steps)?,
            reach: self.reach,
            search_steps: self.search_steps,
            batch_norm: self.batch_norm,
        })
    }

    /// x′ `[B, C, H, W]`, which images were correct `[B]`, and their ε `[B]`, which are remembered.
    fn search(&self, step: &mut Step<'_>, clean_logits: &Tensor) -> Result<Vec<Tensor>> {
        let batch = step.batch;
        let correct = is_correct(clean_logits, &batch.labels)?;
        let rows: Vec<usize> = (0..correct.len()).filter(|&row| correct[row]).collect();

        let mut images = batch.images.clone();
        let mut radii = vec![0.0; correct.len()];
        if !rows.is_empty() {
            let part = batch.select(&rows)?;
            let remembered = step.memory.columns.get(RADIUS);
            let smallest = crate::fields::resolved("min_radius", self.min_radius)?.value();
            let first = part.ids.iter().map(|&id| {
                let last = remembered.map_or(0.0, |column| f64::from(column[id as usize]));
                last.max(smallest)
            });
            let first = Tensor::new(first.collect::<Vec<_>>(), images.device())?.to_dtype(images.dtype())?;
            let largest = 1.05 * crate::fields::resolved("d_max", self.d_max)?.value();
            let (model, norm, random) = (step.model, step.threat.norm, step.random.clone());
            let found = self
                .attack()?
                .search(model, &part, norm, &first, largest, &random, &mut |images| {
                    step.train_logits_of(images, &part.ids)
                })?;
            step.cost += found.cost;
            images = replace_rows(&images, &rows, &found.images)?;
            for (&row, radius) in rows.iter().zip(found.radii.to_dtype(DType::F64)?.to_vec1::<f64>()?) {
                radii[row] = radius;
            }
        }
        if let Some(column) = step.memory.columns.get_mut(RADIUS) {
            for (&id, &radius) in batch.ids.iter().zip(&radii) {
                column[id as usize] = radius as f32;
            }
        }
        let correct: Vec<u8> = correct.into_iter().map(u8::from).collect();
        let (correct, radii) = (Tensor::new(correct, &Device::Cpu)?, Tensor::new(radii, &Device::Cpu)?);
        Ok(vec![images, correct, radii])
    }
}

impl Defense for Mma {
    fn objective(&self, step: &mut Step<'_>) -> Result<Tensor> {
        let batch = step.batch;
        let clean_logits = step.train_logits(&batch.images)?;
        let found = step.craft(|step| self.search(step, &clean_logits))?;
        let [images, correct, radii] = &found[..] else {
            candle_core::bail!("a search gives images, which of them were correct, and radii");
        };
        let correct: Vec<bool> = correct.to_vec1::<u8>()?.into_iter().map(|flag| flag == 1).collect();
        let radii = radii.to_vec1::<f64>()?;
        let second_logits = step.train_logits(images)?;
        step.perturbed = Some(images.clone());
        let mean = |losses: &Tensor| step.mean(losses);
        Ok(self
            .loss(&clean_logits, &second_logits, &batch.labels, &correct, &radii, mean)?
            .total)
    }

    fn memory(&self, examples: usize) -> Memory {
        Memory {
            columns: [(RADIUS.to_string(), vec![0.0; examples])].into(),
        }
    }

    /// The training scripts of BorealisAI/mma_training (328e2e5): on CIFAR-10 for WRN-28-4, on MNIST for LeNet5.
    fn authors_recipe(&self, setting: &Setting) -> Option<Recipe> {
        match (setting.threat.norm, setting.family) {
            (Norm::L2, _) => None,
            (Norm::Linf, Family::Cifar) => Some(Recipe {
                length: Length::Steps(50_000),
                batch: 128,
                optimizer: Optimizer::Sgd {
                    rate: 0.3,
                    momentum: 0.9,
                    nesterov: false,
                    weight_decay: 2e-4,
                    decay: Decay::All,
                },
                schedule: Schedule::Piecewise {
                    at: vec![20_000, 30_000, 40_000],
                    factors: vec![0.3, 0.1, 0.03],
                },
                clip_gradient: None,
                augment: vec![Augmentation::Crop4Reflect, Augmentation::Flip],
                awp: None,
                averaging: None,
            }),
            (Norm::Linf, Family::Mnist) => Some(Recipe {
                length: Length::Steps(100_000),
                batch: 50,
                optimizer: Optimizer::adam(1e-4),
                schedule: Schedule::Constant {},
                clip_gradient: None,
                augment: vec![],
                awp: None,
                averaging: None,
            }),
        }
    }
}

/// Where SLM < 0, that is p_y > ½: stricter than the largest logit.
pub(crate) fn is_correct(logits: &Tensor, labels: &Tensor) -> Result<Vec<bool>> {
    let margins = soft_margin(&logits.detach(), labels)?
        .to_dtype(DType::F64)?
        .to_vec1::<f64>()?;
    Ok(margins.into_iter().map(|margin| margin < 0.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use attacks::{Batch, Threat};
    use random::Stream;
    use testing::{Linear, tensor};

    #[test]
    fn radii_are_the_distances_to_the_boundary_and_are_remembered() {
        // Class 0 where the first pixel exceeds ½; the first image is right by 0.1, the second wrong.
        let linear = Linear {
            weight: tensor(&[20.0, 0.0, -20.0, 0.0], &[2, 2]),
            bias: tensor(&[-10.0, 10.0], &[2]),
        };
        let images = tensor(&[0.6, 0.3, 0.4, 0.3], &[2, 1, 1, 2]);
        let batch = Batch {
            images,
            labels: Tensor::new(&[0u32, 0], &Device::Cpu).unwrap(),
            ids: vec![3, 1],
        };
        let threat = Threat {
            norm: Norm::Linf,
            epsilon: Pixels::new(1, 10),
        };
        let mma = Mma {
            d_max: Some(Pixels::new(2, 10)),
            min_radius: Some(Pixels::new(1, 100)),
            steps: Some(5),
            ..Mma::default()
        };
        let mut memory = mma.memory(4);
        let mut step = Step::new(&linear, &batch, &threat, Stream::new(0), 0, &mut memory);
        mma.objective(&mut step).unwrap();
        let moved = reference::doubles(&step.perturbed.take().unwrap());
        let radii = &memory.columns[RADIUS];
        // Ten bisections of [0, 0.21].
        assert!((radii[3] - 0.1).abs() < 0.21 / 1024.0, "{radii:?}");
        assert_eq!([radii[0], radii[1], radii[2]], [0.0; 3]);
        assert!((moved[0] - 0.5).abs() < 0.21 / 1024.0, "{moved:?}");
        assert_eq!(moved[2..], [0.4, 0.3]);
    }
}
