//! FAB, the fast adaptive boundary attack: Croce and Hein 2020, arXiv:1907.02044, as in fra31/auto-attack (a392200).
//!
//! f = z_t − z_y at v, w = ∇f; the boundary is taken for the plane {q : f + ⟨w, q − v⟩ = 0}
//! d₁, d₂ = the smallest changes that bring v and x onto the plane inside `[0, 1]`
//! α = min(a₁ / (a₁ + a₂), α_max), aᵢ = max(‖dᵢ‖, 1e-8); v ← clip((1 − α)(v + η·d₁) + α(x + η·d₂))
//! if v is misclassified (as any class), it is kept if it is the nearest so far, and v ← x + β(v − x)
//!
//! Images `[B, C, H, W]` in `[0, 1]`; logits z; norms in pixel units, L∞ or L2. FAB looks for the smallest adversarial
//! change and knows no radius: an example counts as broken if the change found is at most ε. `aim: {targets: n}`, the
//! default, is FAB-T: t is each of the n most probable wrong classes of the clean prediction in turn, each tried on the
//! examples that the classes before left unbroken. `aim: nearest` takes in every step the class whose plane is nearest, for one
//! backward pass per class. The first try starts at the image, the others on the sphere of radius ε/2 around it.
//!
//! Only examples that are classified correctly are attacked; the result is the nearest adversarial point of a broken
//! example and the clean image of a robust one. Planes and projections are computed in double precision.
//! Deviations: the draws follow the example; the clean images are classified once, not once per class; the image found
//! is not classified again.

mod projection;

use candle_core::{DType, Result, Tensor};
use models::Classifier;
use random::{Purpose, Stream};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::projection::length;
pub(crate) use self::projection::to_plane;
use crate::host::{doubles, placed};
use crate::losses::at;
use crate::survivors::{Draws, Examples, Survivors, numbers, wrong};
use crate::targets::resolve_targets;
use crate::{Attack, Batch, BatchNorm, Cost, Description, Invalid, Method, Norm, Perturbed, Probe, Setting, Threat};

/// The fast adaptive boundary attack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fab {
    /// Steps of one try; 100.
    #[serde(default = "default_steps")]
    pub steps: u64,
    /// Which boundary is approached; that to each of 9 classes, or of all wrong ones if there are fewer.
    #[serde(default)]
    pub aim: Option<Aim>,
    /// Independent tries, for each class if it is targeted; 1.
    #[serde(default = "default_restarts")]
    pub restarts: u64,
    /// α_max, the most weight that the path from the image has; 0.1.
    #[serde(default = "default_alpha_max")]
    pub alpha_max: f64,
    /// β, what is left of the change after a success; 0.9.
    #[serde(default = "default_beta")]
    pub beta: f64,
    /// η, how far past the plane a step goes; 1.05.
    #[serde(default = "default_eta")]
    pub eta: f64,
}

/// Which boundary FAB approaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Aim {
    /// FAB-T: one try for each of this many classes, the most probable wrong ones first.
    Targets(u64),
    /// FAB: in every step that which looks nearest.
    Nearest,
}

/// No change of an image counts as shorter than this.
const SHORTEST: f64 = 1e-8;
/// Pixels that are not worth another thread.
const SMALL_WORK: usize = 1 << 14;

fn default_steps() -> u64 {
    100
}

fn default_restarts() -> u64 {
    1
}

fn default_alpha_max() -> f64 {
    0.1
}

fn default_beta() -> f64 {
    0.9
}

fn default_eta() -> f64 {
    1.05
}

impl Default for Fab {
    fn default() -> Self {
        Self {
            steps: default_steps(),
            aim: None,
            restarts: default_restarts(),
            alpha_max: default_alpha_max(),
            beta: default_beta(),
            eta: default_eta(),
        }
    }
}

impl Method for Fab {
    const NAME: &'static str = "fab";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "walks along the decision boundary towards the image, for the smallest change: FAB-T";
    const SOURCE: &'static str = "Croce and Hein 2020, arXiv:1907.02044";
    const EXAMPLE: &'static str = r#"{"steps": 100, "aim": {"targets": 9}}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        crate::positive("steps", self.steps)?;
        crate::positive("restarts", self.restarts)?;
        let mut targets = match self.aim {
            Some(Aim::Nearest) => None,
            Some(Aim::Targets(targets)) => Some(targets),
            None => None,
        };
        if self.aim != Some(Aim::Nearest) {
            resolve_targets(&mut targets, setting.classes).map_err(|invalid| invalid.within("aim"))?;
            self.aim = targets.map(Aim::Targets);
        }
        for (field, value, usual) in [("alpha_max", self.alpha_max, 0.1), ("beta", self.beta, 0.9)] {
            if !(0.0..=1.0).contains(&value) {
                let message = format!("{field} is {value}; it must be between 0 and 1, usually {usual}");
                return Err(Invalid::new(field, message));
            }
        }
        if !(self.eta.is_finite() && self.eta >= 1.0) {
            let message = format!("eta is {}; it must be at least 1, usually 1.05", self.eta);
            return Err(Invalid::new("eta", message));
        }
        Ok(())
    }
}

impl Attack for Fab {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        crate::survivors::perturb(classifier, batch, |probe, examples, survivors| {
            self.take(probe, examples, threat, random, survivors)
        })
    }

    fn describe(&self) -> Description {
        Description {
            steps: Some(self.steps),
            step_size: None,
            restarts: Some(self.restarts),
            loss: Some("logit difference".to_string()),
            start: Some("none".to_string()),
            batch_norm: Some(BatchNorm::Eval.to_string()),
        }
    }

    fn ceiling(&self, classes: usize) -> Option<Cost> {
        let (runs, gradients) = match self.aim? {
            Aim::Targets(targets) => (targets * self.restarts, 1),
            Aim::Nearest => (self.restarts, classes as u64),
        };
        Some(Cost {
            forwards: 2 * runs * self.steps + 1,
            backwards: gradients * runs * self.steps,
        })
    }
}

impl Fab {
    /// Attacks the survivors and removes those that it breaks.
    pub(crate) fn take(
        &self,
        probe: &mut Probe<'_>,
        examples: &Examples,
        threat: &Threat,
        random: &Stream,
        survivors: &mut Survivors,
    ) -> Result<()> {
        let Some(aim) = self.aim else {
            candle_core::bail!("fab: aim is open; resolve the configuration first");
        };
        let runs = match aim {
            Aim::Nearest => self.restarts,
            Aim::Targets(targets) => targets * self.restarts,
        };
        let draws = random.of(Purpose::AttackStart);
        for run in 0..runs {
            let rows = survivors.rows();
            if rows.is_empty() {
                break;
            }
            let part = examples.select(&rows)?;
            let boundary = match aim {
                Aim::Nearest => Boundary::Nearest,
                Aim::Targets(_) => Boundary::To((run / self.restarts) as usize + 1),
            };
            let start = if run % self.restarts == 0 {
                part.batch.images.clone()
            } else {
                sphere(threat, &part.batch, run, &draws)?
            };
            let nearest = self.approach(probe, &part, boundary, threat.norm, &start)?;
            survivors.note_stalls(&rows, probe)?;
            let near = |distance: &f64| *distance <= threat.epsilon.value();
            let broken: Vec<bool> = nearest.distances.iter().map(near).collect();
            survivors.take(&rows, &broken, &nearest.images)?;
        }
        Ok(())
    }

    /// One try on every one of `examples`, which are classified correctly.
    pub(crate) fn approach(
        &self,
        probe: &mut Probe<'_>,
        examples: &Examples,
        boundary: Boundary,
        norm: Norm,
        start: &Tensor,
    ) -> Result<Nearest> {
        let batch = &examples.batch;
        let targets = match boundary {
            Boundary::To(rank) => Some(crate::loss::wrong_class(&examples.clean_logits, &batch.labels, rank)?),
            Boundary::Nearest => None,
        };
        let pixels = batch.images.elem_count() / batch.ids.len().max(1);
        let clean = doubles(&batch.images)?;
        let mut points = start.clone();
        let mut places = doubles(&points)?;
        let mut nearest = clean.clone();
        let mut distances = vec![f64::INFINITY; batch.ids.len()];
        for _ in 0..self.steps {
            let planes = match &targets {
                Some(targets) => plane_to(probe, &points, &batch.labels, targets)?,
                None => nearest_plane(probe, &points, &batch.labels, norm)?,
            };
            places
                .par_chunks_mut(pixels)
                .zip(clean.par_chunks(pixels))
                .zip(planes.normals.par_chunks(pixels).zip(&planes.values))
                .with_min_len((SMALL_WORK / pixels.max(1)).max(1))
                .for_each(|((point, image), (normal, value))| self.step(norm, point, image, normal, *value));
            points = placed(places.clone(), batch.images.shape(), &batch.images)?;
            places = doubles(&points)?; // as rounded
            let fooled = wrong(&probe.logits(&points)?, &batch.labels)?;
            let rows = places.chunks_mut(pixels).zip(clean.chunks(pixels));
            for (row, (point, image)) in rows.enumerate().filter(|(row, _)| fooled[*row]) {
                let distance = length(norm, point.iter().zip(image).map(|(point, pixel)| point - pixel));
                if distance < distances[row] {
                    distances[row] = distance;
                    nearest[row * pixels..][..pixels].copy_from_slice(point);
                }
                for (point, pixel) in point.iter_mut().zip(image) {
                    *point = pixel + (*point - pixel) * self.beta;
                }
            }
            if fooled.contains(&true) {
                points = placed(places.clone(), batch.images.shape(), &batch.images)?;
                places = doubles(&points)?;
            }
        }
        Ok(Nearest {
            images: placed(nearest, batch.images.shape(), &batch.images)?,
            distances,
        })
    }

    /// v ← clip((1 − α)(v + η·d₁) + α(x + η·d₂)), for one image. The plane is f + ⟨w, q − v⟩ = 0.
    fn step(&self, norm: Norm, point: &mut [f64], image: &[f64], normal: &[f64], value: f64) {
        let along: f64 = normal
            .iter()
            .zip(image.iter().zip(&*point))
            .map(|(w, (x, v))| w * (x - v))
            .sum();
        let from_point = to_plane(norm, point, normal, value);
        let from_image = to_plane(norm, image, normal, value + along);
        let [a, b] = [&from_point, &from_image].map(|change| length(norm, change.iter().copied()).max(SHORTEST));
        let alpha = (a / (a + b)).min(self.alpha_max);
        for (i, v) in point.iter_mut().enumerate() {
            let forward = *v + self.eta * from_point[i];
            let biased = image[i] + self.eta * from_image[i];
            *v = (forward * (1.0 - alpha) + biased * alpha).clamp(0.0, 1.0);
        }
    }
}

/// The boundary of one try.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Boundary {
    /// To the wrong class at this rank of the clean prediction, from 1.
    To(usize),
    /// To whichever class's plane is nearest.
    Nearest,
}

/// What one try found.
#[derive(Debug)]
pub(crate) struct Nearest {
    /// The nearest adversarial point, the clean image where there is none.
    pub(crate) images: Tensor,
    /// How far it is; infinite where there is none.
    pub(crate) distances: Vec<f64>,
}

/// For each image the plane f + ⟨w, q − v⟩ = 0.
struct Planes {
    /// w, image after image.
    normals: Vec<f64>,
    /// f
    values: Vec<f64>,
}

fn plane_to(probe: &mut Probe<'_>, points: &Tensor, labels: &Tensor, targets: &Tensor) -> Result<Planes> {
    let slope = probe.slope(points, |logits| at(logits, targets)? - at(logits, labels)?)?;
    Ok(Planes {
        normals: doubles(&slope.gradient)?,
        values: numbers(&slope.losses)?,
    })
}

/// Of the planes to all wrong classes the nearest: |f| / ‖w‖ in the dual norm is smallest.
fn nearest_plane(probe: &mut Probe<'_>, points: &Tensor, labels: &Tensor, norm: Norm) -> Result<Planes> {
    let (logits, gradients) = probe.jacobian(points)?;
    let logits = logits.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let gradients = gradients.iter().map(doubles).collect::<Result<Vec<_>>>()?;
    let pixels = points.elem_count() / logits.len().max(1);
    let mut planes = Planes {
        normals: Vec::with_capacity(points.elem_count()),
        values: Vec::with_capacity(logits.len()),
    };
    for (row, (logits, label)) in logits.iter().zip(labels.to_vec1::<u32>()?).enumerate() {
        let label = label as usize;
        let gradient = |class: usize| &gradients[class][row * pixels..][..pixels];
        let plane = |class: usize| {
            let difference = gradient(class).iter().zip(gradient(label)).map(|(a, b)| a - b);
            (logits[class] - logits[label], difference.collect::<Vec<f64>>())
        };
        let distance = |(value, normal): &(f64, Vec<f64>)| {
            let dual = match norm {
                Norm::Linf => normal.iter().map(|w| w.abs()).sum(),
                Norm::L2 => length(Norm::L2, normal.iter().copied()),
            };
            value.abs() / (1e-12 + dual)
        };
        let wrong = (0..logits.len()).filter(|&class| class != label).map(plane);
        let nearest = wrong.min_by(|a, b| distance(a).total_cmp(&distance(b)));
        let (value, normal) = nearest.ok_or_else(|| candle_core::Error::msg("fab: one class has no boundary"))?;
        planes.values.push(value);
        planes.normals.extend(normal);
    }
    Ok(planes)
}

/// x + ½ε·t/‖t‖, t uniform in `[−1, 1)` (L2: normal), cut to `[0, 1]`.
fn sphere(threat: &Threat, batch: &Batch, run: u64, draws: &dyn Draws) -> Result<Tensor> {
    let mut points = doubles(&batch.images)?;
    let pixels = points.len() / batch.ids.len();
    let directions = match threat.norm {
        Norm::Linf => draws.uniform(run, &batch.ids, pixels),
        Norm::L2 => draws.normal(run, &batch.ids, pixels),
    };
    let radius = threat.epsilon.value() / 2.0;
    for (point, direction) in points.chunks_mut(pixels).zip(directions.chunks(pixels)) {
        let direction = direction.iter().map(|&draw| match threat.norm {
            Norm::Linf => 2.0 * f64::from(draw) - 1.0,
            Norm::L2 => f64::from(draw),
        });
        let norm = length(threat.norm, direction.clone()).max(1e-12);
        for (pixel, t) in point.iter_mut().zip(direction) {
            *pixel = (*pixel + radius * t / norm).clamp(0.0, 1.0);
        }
    }
    placed(points, batch.images.shape(), &batch.images)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;
    use crate::fixtures::{setting, waves};
    use testing::{assert_near, tensor as doubles_of};

    #[test]
    fn other_tries_start_at_half_the_radius() {
        let mut batch = waves(2, [1, 3, 3], 3);
        batch.images = ((batch.images * 0.2).unwrap() + 0.4).unwrap();
        for norm in [Norm::Linf, Norm::L2] {
            let threat = Threat {
                norm,
                epsilon: "0.2".parse().unwrap(),
            };
            let start = sphere(&threat, &batch, 1, &Stream::new(0)).unwrap();
            let distances = threat.distances(&batch.images, &start).unwrap();
            assert_near("distance", &distances, &doubles_of(&[0.1; 2], &[2]), 1e-9);
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let setting = setting(Family::Cifar, Norm::Linf);
        let refuse = |fab: Fab, field: &str| {
            assert_eq!(fab.clone().resolve(&setting).unwrap_err().field, field, "{fab:?}");
        };
        refuse(
            Fab {
                steps: 0,
                ..Fab::default()
            },
            "steps",
        );
        refuse(
            Fab {
                aim: Some(Aim::Targets(10)),
                ..Fab::default()
            },
            "aim.targets",
        );
        refuse(
            Fab {
                alpha_max: 1.1,
                ..Fab::default()
            },
            "alpha_max",
        );
        refuse(
            Fab {
                beta: -0.1,
                ..Fab::default()
            },
            "beta",
        );
        refuse(
            Fab {
                eta: 0.9,
                ..Fab::default()
            },
            "eta",
        );
        let mut nearest = Fab {
            aim: Some(Aim::Nearest),
            ..Fab::default()
        };
        nearest.resolve(&setting).unwrap();
        assert_eq!(nearest.aim, Some(Aim::Nearest));
    }
}
