//! TI-FGSM, MI-FGSM with gradients smoothed over shifts, for attacks that transfer: Dong et al. 2019, arXiv:1904.02884.
//!
//! g = W ∗ ∇L(x′), W a Gaussian kernel whose edge is three standard deviations from its middle; then as
//! [`crate::MiFgsm`]: G ← μ·G + g / ‖g‖₁, x′ ← Π(x′ + step · sign G)
//!
//! Images `[B, C, H, W]` in `[0, 1]`; the convolution works on each channel, with zeros around it. With
//! `probability` above 0 the gradient is taken at randomly shrunk images, as in [`crate::DiFgsm`]: the paper's TI-DIM.
//! Deviation: the paper's kernel has 15 pixels for images of 299. On images of 8 to 32 pixels that would remove all
//! structure, so ours has 5; write `kernel: 15` for the paper's.

use candle_core::{Result, Tensor};
use models::Classifier;
use random::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diversity::{self, Diversity};
use crate::momentum::{Momentum, Variation};
use crate::{Attack, Batch, BatchNorm, Description, Invalid, Loss, Method, Perturbed, Pixels, Setting, Threat};

/// MI-FGSM with gradients smoothed over shifts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TiFgsm {
    /// Gradient steps; 10.
    #[serde(default = "default_steps")]
    pub steps: u64,
    /// The length of a step.
    #[serde(default)]
    pub step_size: Option<Pixels>,
    /// μ, how much of the gathered direction is kept; 1.
    #[serde(default = "default_decay")]
    pub decay: f64,
    /// Height and width of W in pixels, odd; 5.
    #[serde(default = "default_kernel")]
    pub kernel: u64,
    /// How often an image is changed before the network sees it, as in `di-fgsm`; 0.
    #[serde(default)]
    pub probability: f64,
    /// The smallest height that it is shrunk to, as a share; 0.9.
    #[serde(default = "default_rate")]
    pub rate: f64,
    /// The loss ascended.
    #[serde(default)]
    pub loss: Loss,
    /// The batch-norm mode in which the network is attacked.
    #[serde(default)]
    pub batch_norm: BatchNorm,
}

fn default_steps() -> u64 {
    10
}

fn default_decay() -> f64 {
    1.0
}

fn default_kernel() -> u64 {
    5
}

fn default_rate() -> f64 {
    0.9
}

impl Default for TiFgsm {
    fn default() -> Self {
        Self {
            steps: default_steps(),
            step_size: None,
            decay: default_decay(),
            kernel: default_kernel(),
            probability: 0.0,
            rate: default_rate(),
            loss: Loss::default(),
            batch_norm: BatchNorm::default(),
        }
    }
}

impl TiFgsm {
    fn as_momentum(&self) -> Momentum {
        Momentum {
            steps: self.steps,
            step_size: self.step_size,
            decay: self.decay,
            loss: self.loss,
            batch_norm: self.batch_norm,
        }
    }
}

impl Method for TiFgsm {
    const NAME: &'static str = "ti-fgsm";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "mi-fgsm with gradients smoothed by a Gaussian kernel, for transfer";
    const SOURCE: &'static str = "Dong et al. 2019, arXiv:1904.02884";
    const EXAMPLE: &'static str = r#"{"steps": 10, "kernel": 5}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        let mut momentum = self.as_momentum();
        momentum.resolve(setting)?;
        self.step_size = momentum.step_size;
        if self.kernel.is_multiple_of(2) {
            let message = format!(
                "kernel is {}; it must be odd, so that it has a middle, such as 5",
                self.kernel
            );
            return Err(Invalid::new("kernel", message));
        }
        diversity::check(self.probability, self.rate)
    }
}

impl Attack for TiFgsm {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        let moves = random.of(Purpose::AttackMove);
        let kernel = gaussian(self.kernel as usize);
        let variation = Variation {
            transform: &mut |step, images| {
                if self.probability == 0.0 {
                    return Ok(None);
                }
                Diversity::draw(self.probability, self.rate, images, &batch.ids, &moves.at(step)).map(Some)
            },
            smooth: &|gradient| smooth(gradient, &kernel),
            observe: &mut |_, _| Ok(()),
        };
        self.as_momentum().ascend(classifier, batch, threat, variation)
    }

    fn describe(&self) -> Description {
        self.as_momentum().describe()
    }
}

/// The density of a normal distribution at `size` places from −3 to 3 standard deviations, of sum 1. W is its product
/// with itself.
fn gaussian(size: usize) -> Vec<f64> {
    let middle = (size / 2) as f64;
    let density = |place: usize| {
        let deviations = 3.0 * (place as f64 - middle) / middle.max(1.0);
        (-0.5 * deviations * deviations).exp()
    };
    let values: Vec<f64> = (0..size).map(density).collect();
    let sum: f64 = values.iter().sum();
    values.into_iter().map(|value| value / sum).collect()
}

/// The convolution of each channel with the kernel's product with itself, zeros around.
fn smooth(gradient: &Tensor, kernel: &[f64]) -> Result<Tensor> {
    let (examples, channels, height, width) = gradient.dims4()?;
    let size = kernel.len();
    let square: Vec<f64> = kernel.iter().flat_map(|a| kernel.iter().map(move |b| a * b)).collect();
    let weights = Tensor::from_vec(square, (1, 1, size, size), gradient.device())?.to_dtype(gradient.dtype())?;
    let planes = gradient.reshape((examples * channels, 1, height, width))?;
    planes.conv2d(&weights, size / 2, 1, 1, 1)?.reshape(gradient.shape())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{setting, waves};
    use crate::{Family, MiFgsm, Norm, Start};
    use testing::{Linear, Wave, assert_near, tensor};

    #[test]
    fn the_kernel_of_the_paper() {
        // scipy.stats.norm.pdf at 15 places from −3 to 3, normalised: its middle and its end.
        let kernel = gaussian(15);
        assert!((kernel[7] - 0.171_180_7).abs() < 1e-6, "{}", kernel[7]);
        assert!((kernel[0] / kernel[7] - (-4.5f64).exp()).abs() < 1e-12);
        assert!((kernel.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(gaussian(1), [1.0]);
    }

    #[test]
    fn smoothing_worked_by_hand() {
        let spike = tensor(&[0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0], &[1, 1, 3, 3]);
        let expected = [0.25, 0.5, 0.25, 0.5, 1.0, 0.5, 0.25, 0.5, 0.25];
        let smoothed = smooth(&spike, &[0.25, 0.5, 0.25]).unwrap();
        assert_near("spike", &smoothed, &tensor(&expected, &[1, 1, 3, 3]), 1e-12);
    }

    #[test]
    fn a_linear_network_moves_along_its_smoothed_weights() {
        // Difference of the logits' weights: one pixel against its neighbours, outvoted by them once smoothed.
        let towards = [1.0, 1.0, 1.0, 1.0, -0.5, 1.0, 1.0, 1.0, 1.0];
        let weight: Vec<f64> = towards
            .iter()
            .map(|w| -w / 2.0)
            .chain(towards.iter().map(|w| w / 2.0))
            .collect();
        let linear = Linear {
            weight: tensor(&weight, &[2, 9]),
            bias: tensor(&[0.0, 0.0], &[2]),
        };
        let batch = Batch {
            images: tensor(&[0.5; 9], &[1, 1, 3, 3]),
            labels: Tensor::new(&[0u32], &candle_core::Device::Cpu).unwrap(),
            ids: vec![0],
        };
        let threat = Threat {
            norm: Norm::Linf,
            epsilon: "0.1".parse().unwrap(),
        };
        let centre = |kernel| {
            let attack = TiFgsm {
                kernel,
                step_size: Some("0.1".parse().unwrap()),
                ..TiFgsm::default()
            };
            let found = attack.perturb(&linear, &batch, &threat, &Stream::new(0)).unwrap();
            reference::doubles(&found.images)[4]
        };
        assert!((centre(1) - 0.4).abs() < 1e-12 && (centre(3) - 0.4).abs() < 1e-12);
        // The middle of five weighs 0.598² = 0.358: 0.974 − 1.5 · 0.358 > 0 against 1 − 1.5 · 0.957 < 0 of three.
        assert!((centre(5) - 0.6).abs() < 1e-12, "{}", centre(5));
    }

    #[test]
    fn without_kernel_and_diversity_it_is_mi_fgsm() {
        let (batch, wave) = (waves(4, [1, 3, 3], 3), Wave::new(3, 9, 4.0));
        let mut plain = MiFgsm::default();
        let mut attack = TiFgsm {
            kernel: 1,
            ..TiFgsm::default()
        };
        for norm in [Norm::Linf, Norm::L2] {
            let setting = setting(Family::Cifar, norm);
            plain.resolve(&setting).unwrap();
            attack.resolve(&setting).unwrap();
            let stream = Stream::new(3);
            let expected = plain.perturb(&wave, &batch, &setting.threat, &stream).unwrap();
            let found = attack.perturb(&wave, &batch, &setting.threat, &stream).unwrap();
            assert_near("ti-fgsm", &found.images, &expected.images, 1e-12);
            assert_eq!(found.cost, expected.cost);
            (plain.step_size, attack.step_size) = (None, None);
        }
        assert_eq!(attack.describe().start, Some(Start::None.to_string()));
    }

    #[test]
    fn kernels_without_a_middle_are_refused() {
        let setting = setting(Family::Cifar, Norm::Linf);
        let refuse = |attack: TiFgsm, field: &str| {
            assert_eq!(attack.clone().resolve(&setting).unwrap_err().field, field, "{attack:?}");
        };
        refuse(
            TiFgsm {
                kernel: 4,
                ..TiFgsm::default()
            },
            "kernel",
        );
        refuse(
            TiFgsm {
                probability: 1.5,
                ..TiFgsm::default()
            },
            "probability",
        );
        refuse(
            TiFgsm {
                rate: 0.0,
                ..TiFgsm::default()
            },
            "rate",
        );
    }
}
