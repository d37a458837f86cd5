//! DI-FGSM, MI-FGSM with input diversity, for attacks that transfer: Xie et al. 2019, arXiv:1803.06978.
//!
//! g = ∇L(T(x′)) T: with probability p the image is shrunk to r × r pixels, r uniform in `[rate·H, H)`, and laid at a
//! random place on black; then as [`crate::MiFgsm`]: G ← μ·G + g / ‖g‖₁, x′ ← Π(x′ + step · sign G)
//!
//! Images `[B, C, H, W]` in `[0, 1]`, shrunk by taking the nearest pixel. Every example draws its own T in every step.
//! Deviation: the paper enlarges images of 299 pixels to at most 330, and the network takes the larger ones; ours
//! take one size, so images are shrunk instead, by default to no less than 0.9, as ports to small images do.

use candle_core::{Device, Result, Tensor};
use models::Classifier;
use random::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::placed;
use crate::mi_fgsm::{Momentum, ten, whole};
use crate::{Attack, Batch, BatchNorm, Description, Invalid, Loss, Method, MiFgsm, Perturbed, Pixels, Setting, Threat};

/// MI-FGSM with input diversity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiFgsm {
    /// Gradient steps; 10.
    #[serde(default = "ten")]
    pub steps: u64,
    /// The length of a step.
    #[serde(default)]
    pub step_size: Option<Pixels>,
    /// μ, how much of the gathered direction is kept; 1.
    #[serde(default = "whole")]
    pub decay: f64,
    /// p, how often an image is changed before the network sees it; 0.5.
    #[serde(default = "half")]
    pub probability: f64,
    /// The smallest height that an image is shrunk to, as a share; 0.9.
    #[serde(default = "nine_tenths")]
    pub rate: f64,
    /// The loss ascended.
    #[serde(default)]
    pub loss: Loss,
    /// The batch-norm mode in which the network is attacked.
    #[serde(default)]
    pub batch_norm: BatchNorm,
}

pub(crate) fn half() -> f64 {
    0.5
}

pub(crate) fn nine_tenths() -> f64 {
    0.9
}

impl Default for DiFgsm {
    fn default() -> Self {
        Self {
            steps: ten(),
            step_size: None,
            decay: whole(),
            probability: half(),
            rate: nine_tenths(),
            loss: Loss::default(),
            batch_norm: BatchNorm::default(),
        }
    }
}

impl DiFgsm {
    fn as_mi_fgsm(&self) -> MiFgsm {
        MiFgsm {
            steps: self.steps,
            step_size: self.step_size,
            decay: self.decay,
            loss: self.loss,
            batch_norm: self.batch_norm,
        }
    }
}

impl Method for DiFgsm {
    const NAME: &'static str = "di-fgsm";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "mi-fgsm on randomly shrunk and shifted images, for transfer";
    const SOURCE: &'static str = "Xie et al. 2019, arXiv:1803.06978";
    const EXAMPLE: &'static str = r#"{"steps": 10, "probability": 0.5}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        let mut plain = self.as_mi_fgsm();
        plain.resolve(setting)?;
        self.step_size = plain.step_size;
        check_diversity(self.probability, self.rate)
    }
}

/// Refuses a probability or rate that is none.
pub(crate) fn check_diversity(probability: f64, rate: f64) -> std::result::Result<(), Invalid> {
    if !(0.0..=1.0).contains(&probability) {
        let message = format!("probability is {probability}; it must lie between 0 and 1, usually 0.5");
        return Err(Invalid::new("probability", message));
    }
    if rate > 0.0 && rate <= 1.0 {
        return Ok(());
    }
    let message = format!("rate is {rate}; it must be a share above 0 and up to 1, usually 0.9");
    Err(Invalid::new("rate", message))
}

impl Attack for DiFgsm {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        let moves = random.of(Purpose::AttackMove);
        let momentum = Momentum {
            attack: &self.as_mi_fgsm(),
            seen: &mut |step, images| {
                Diversity::draw(self.probability, self.rate, images, &batch.ids, &moves.at(step)).map(Some)
            },
            smooth: &|gradient| Ok(gradient.clone()),
            observe: &mut |_, _| Ok(()),
        };
        momentum.climb(classifier, batch, threat)
    }

    fn describe(&self) -> Description {
        self.as_mi_fgsm().describe()
    }
}

/// T, of every image in a batch: each pixel of the result is one of the image's or black.
#[derive(Debug)]
pub(crate) struct Diversity {
    /// Where each pixel of T(x) comes from, and 1, or 0 where it is black: `[B, C, H·W]`.
    forward: (Tensor, Tensor),
    /// Where each pixel of x goes, and 1, or 0 where it goes nowhere.
    backward: (Tensor, Tensor),
}

impl Diversity {
    /// `random`: of this step.
    pub(crate) fn draw(probability: f64, rate: f64, images: &Tensor, ids: &[u64], random: &Stream) -> Result<Self> {
        let (examples, channels, height, width) = images.dims4()?;
        let plane = height * width;
        let mut there = Maps::new(examples, plane);
        let mut back = Maps::new(examples, plane);
        // Whether, the size, and the place.
        for (row, draws) in random.uniform(ids, 4).chunks(4).enumerate() {
            let places = place(probability, rate, draws, height, width);
            for (from, to) in places {
                there.set(row, to, from);
                back.set(row, from, to);
            }
        }
        Ok(Self {
            forward: there.tensors(channels, images)?,
            backward: back.tensors(channels, images)?,
        })
    }

    /// T(x).
    pub(crate) fn apply(&self, images: &Tensor) -> Result<Tensor> {
        carry(images, &self.forward)
    }

    /// The gradient at x from that at T(x): every pixel of x goes to one place at most.
    pub(crate) fn pull_back(&self, gradient: &Tensor) -> Result<Tensor> {
        carry(gradient, &self.backward)
    }
}

/// Pairs of (pixel of x, pixel of T(x)), indices in a plane.
fn place(probability: f64, rate: f64, draws: &[f32], height: usize, width: usize) -> Vec<(usize, usize)> {
    let plane = height * width;
    if f64::from(draws[0]) >= probability {
        return (0..plane).map(|pixel| (pixel, pixel)).collect();
    }
    let least = ((rate * height as f64) as usize).max(1);
    let pick = |draw: f32, choices: usize| ((draw * choices as f32) as usize).min(choices.saturating_sub(1));
    // The size itself never comes up, unless it is the only one.
    let tall = least + pick(draws[1], (height - least).max(1));
    let wide = (tall * width / height).max(1);
    let top = pick(draws[2], height - tall + 1);
    let left = pick(draws[3], width - wide + 1);
    let mut pairs = Vec::with_capacity(tall * wide);
    for y in 0..tall {
        for x in 0..wide {
            let from = (y * height / tall) * width + x * width / wide;
            pairs.push((from, (top + y) * width + left + x));
        }
    }
    pairs
}

/// For each image of a batch, which pixel of another plane each pixel takes.
struct Maps {
    plane: usize,
    sources: Vec<u32>,
    weights: Vec<f32>,
}

impl Maps {
    fn new(examples: usize, plane: usize) -> Self {
        Self {
            plane,
            sources: vec![0; examples * plane],
            weights: vec![0.0; examples * plane],
        }
    }

    fn set(&mut self, row: usize, pixel: usize, source: usize) {
        self.sources[row * self.plane + pixel] = source as u32;
        self.weights[row * self.plane + pixel] = 1.0;
    }

    fn tensors(self, channels: usize, images: &Tensor) -> Result<(Tensor, Tensor)> {
        let examples = self.sources.len() / self.plane;
        let spread = |map: Tensor| map.broadcast_as((examples, channels, self.plane))?.contiguous();
        let shape = (examples, 1, self.plane);
        let sources = Tensor::from_vec(self.sources, shape, &Device::Cpu)?.to_device(images.device())?;
        let weights = placed(self.weights, shape, images)?;
        Ok((spread(sources)?, spread(weights)?))
    }
}

fn carry(images: &Tensor, (sources, weights): &(Tensor, Tensor)) -> Result<Tensor> {
    let planes = images.flatten_from(2)?.contiguous()?;
    (planes.gather(sources, 2)? * weights)?.reshape(images.shape())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, tensor, waves};
    use proptest::prelude::*;
    use reference::doubles;

    #[test]
    fn a_placement_worked_by_hand() {
        // 4 × 4 shrunk to 2 × 2 and laid in the lower right corner: every other pixel.
        let pairs = place(1.0, 0.5, &[0.0, 0.0, 0.99, 0.99], 4, 4);
        assert_eq!(pairs, [(0, 10), (2, 11), (8, 14), (10, 15)]);
        let whole = place(0.5, 0.5, &[0.5, 0.0, 0.0, 0.0], 2, 2);
        assert_eq!(whole, [(0, 0), (1, 1), (2, 2), (3, 3)]);
    }

    proptest! {
        #[test]
        fn the_gradient_is_the_adjoint(seed: u64, rate in 0.05f64..=1.0, probability in 0f64..=1.0) {
            let images = waves(3, [2, 5, 4], 3).images;
            let stream = Stream::new(seed);
            let change = Diversity::draw(probability, rate, &images, &[1, 2, 3], &stream).unwrap();
            let other: Vec<f64> = (0..120).map(|i| (1.3 * i as f64).sin()).collect();
            let other = tensor(&other, &[3, 2, 5, 4]);
            let dot = |a: &Tensor, b: &Tensor| doubles(&(a * b).unwrap()).iter().sum::<f64>();
            let there = dot(&change.apply(&images).unwrap(), &other);
            let back = dot(&images, &change.pull_back(&other).unwrap());
            prop_assert!((there - back).abs() < 1e-12, "{there} {back}");
        }

        #[test]
        fn changed_images_hold_only_their_own_pixels(seed: u64, rate in 0.05f64..=1.0) {
            let images = waves(2, [1, 6, 6], 3).images;
            let changed = Diversity::draw(1.0, rate, &images, &[4, 9], &Stream::new(seed)).unwrap().apply(&images).unwrap();
            for row in 0..2 {
                let own = doubles(&images.get(row).unwrap());
                let values = doubles(&changed.get(row).unwrap());
                prop_assert!(values.iter().all(|value| *value == 0.0 || own.contains(value)));
            }
            let alone = Diversity::draw(1.0, rate, &images.narrow(0, 1, 1).unwrap(), &[9], &Stream::new(seed)).unwrap();
            let alone = alone.apply(&images.narrow(0, 1, 1).unwrap()).unwrap();
            assert_near("alone", &alone, &changed.narrow(0, 1, 1).unwrap(), 0.0);
        }
    }
}
