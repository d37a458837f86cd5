//! MART, misclassification-aware adversarial training: Wang et al. 2020, OpenReview rklOg6EFwS.
//!
//! loss = mean_B [ BCE(p(x′), y) + λ · KL(p(x) ‖ p(x′)) · (1 − p_y(x)) ]
//! BCE(p, y) = −log p_y − log(1 − max_{k≠y} p_k), x′ = argmax over the ball of CE(f(x′), y)
//!
//! Images `[B, C, H, W]` in `[0, 1]`; logits `[B, K]`; result: scalar, nats. Gradients flow through p(x)
//! everywhere: in the KL term's target and in the weight 1 − p_y(x).
//!
//! Constants are those of the released code (YisenWang/MART, 2d83e17, mart.py): 1.0001 for the 1 in BCE,
//! 1.0000001 for the 1 in the weight, 1e-12 inside both logarithms. So are the start of the inner attack
//! and the order of the training passes: x, then x′. The max over k ≠ y takes the last of equal classes.
//! Deviations: the code trains at ε = 0.031 with steps of 0.007, we at the threat model's radius with
//! steps of ε/4; where a clean probability underflows its float32 gradient is NaN, ours is finite.
//!
//! The paper's ablations (its Figure 2) are `weighted`, `boost` and `share`, and `lambda: 0`.

use attacks::losses::{boosted_cross_entropy, cross_entropy, kl_with_floor, probability_of_others};
use attacks::{Family, Invalid, Loss, Method, Norm, Setting};
use candle_core::{Device, Result, Tensor};
use random::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inner::small_gaussian;
use crate::{Augmentation, Decay, Defense, InnerAttack, Length, Optimizer, Recipe, Schedule, Step};

/// The 1 of 1 − max p in BCE.
const BOOST_ONE: f64 = 1.0001;
/// The 1 of the weight 1 − p_y.
const WEIGHT_ONE: f64 = 1.0000001;
/// Added inside logarithms.
const FLOOR: f64 = 1e-12;

/// MART.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mart {
    /// λ, the weight of the KL term; 5, and 6 for wide networks as in the released code.
    #[serde(default)]
    pub lambda: Option<f64>,
    /// What the first term is.
    #[serde(default)]
    pub boost: Boost,
    /// Whether the KL term is weighted by 1 − p_y(x).
    #[serde(default = "default_weighted")]
    pub weighted: bool,
    /// The share of the training examples that the KL term sees, the same ones at every step; 1.
    #[serde(default = "default_share")]
    pub share: f64,
    /// The inner attack; from normal noise of 0.001, on cross entropy.
    #[serde(default)]
    pub attack: InnerAttack,
}

/// The first term of MART's loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Boost {
    /// BCE on the perturbed images.
    #[default]
    Adversarial,
    /// BCE on the clean images.
    Natural,
    /// Plain cross entropy on the perturbed images.
    None,
}

fn default_weighted() -> bool {
    true
}

fn default_share() -> f64 {
    1.0
}

impl Default for Mart {
    fn default() -> Self {
        Self {
            lambda: None,
            boost: Boost::default(),
            weighted: default_weighted(),
            share: default_share(),
            attack: InnerAttack::default(),
        }
    }
}

impl Method for Mart {
    const NAME: &'static str = "mart";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "boosted cross entropy plus KL, weighted by how wrong the clean prediction is";
    const SOURCE: &'static str = "Wang et al. 2020, OpenReview rklOg6EFwS";
    const EXAMPLE: &'static str = r#"{"lambda": 5.0}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        let usual = if is_wide(&setting.network) { 6.0 } else { 5.0 };
        crate::fields::check_weight("lambda", *self.lambda.get_or_insert(usual))?;
        if !(0.0..=1.0).contains(&self.share) {
            return Err(Invalid::new(
                "share",
                format!("share is {}; it must be in [0, 1]", self.share),
            ));
        }
        self.attack
            .resolve(setting, small_gaussian(), Loss::CrossEntropy)
            .map_err(|invalid| invalid.within("attack"))
    }
}

impl Mart {
    /// One value per example `[B]`. `regularized` `[B]` holds 1 where the KL term applies, else 0.
    pub fn loss(&self, clean: &Tensor, robust: &Tensor, labels: &Tensor, regularized: &Tensor) -> Result<Tensor> {
        let first = match self.boost {
            Boost::Adversarial => boosted_cross_entropy(robust, labels, BOOST_ONE, FLOOR),
            Boost::Natural => boosted_cross_entropy(clean, labels, BOOST_ONE, FLOOR),
            Boost::None => cross_entropy(robust, labels),
        }?;
        let mut divergence = (kl_with_floor(clean, robust, FLOOR)? * regularized)?;
        if self.weighted {
            divergence = (divergence * (probability_of_others(clean, labels)? + (WEIGHT_ONE - 1.0))?)?;
        }
        first + (divergence * crate::fields::resolved("lambda", self.lambda)?)?
    }

    /// 1 for the examples that the KL term sees, else 0: `[B]`. Depends on the example alone.
    fn regularized(&self, ids: &[u64], like: &Tensor) -> Result<Tensor> {
        let draws = Stream::new(0).of(Purpose::Subset).uniform(ids, 1);
        let kept: Vec<f32> = draws
            .iter()
            .map(|&draw| f32::from(u8::from(f64::from(draw) < self.share)))
            .collect();
        Tensor::from_vec(kept, ids.len(), &Device::Cpu)?
            .to_dtype(like.dtype())?
            .to_device(like.device())
    }
}

impl Defense for Mart {
    fn objective(&self, step: &mut Step<'_>) -> Result<Tensor> {
        let adversarial = self.attack.perturb(step)?;
        let clean_logits = step.train_logits(&step.batch.images)?;
        let robust_logits = step.train_logits(&adversarial)?;
        let regularized = self.regularized(&step.batch.ids, &clean_logits)?;
        let losses = self.loss(&clean_logits, &robust_logits, &step.batch.labels, &regularized)?;
        step.mean(&losses)
    }

    /// `train_resnet.py` and, for wide networks, `train_wideresnet.py` of YisenWang/MART (2d83e17). The code
    /// has nothing for digits.
    fn authors_recipe(&self, setting: &Setting) -> Option<Recipe> {
        if setting.family != Family::Cifar || setting.threat.norm != Norm::Linf {
            return None;
        }
        let (epochs, rate, weight_decay) = if is_wide(&setting.network) {
            (90, 0.1, 7e-4)
        } else {
            (120, 0.01, 3.5e-3)
        };
        Some(Recipe {
            length: Length::Epochs(epochs),
            batch: 128,
            optimizer: Optimizer::Sgd {
                rate,
                momentum: 0.9,
                nesterov: false,
                weight_decay,
                decay: Decay::All,
            },
            schedule: Schedule::Steps {
                at: vec![75, 90, 100],
                factor: 0.1,
            },
            clip_gradient: None,
            augment: vec![Augmentation::Crop4, Augmentation::Flip],
            awp: None,
            averaging: None,
        })
    }
}

/// Whether a matrix's name of a network is that of a wide residual one.
fn is_wide(network: &str) -> bool {
    network.contains("wrn") || network.contains("wide")
}

#[cfg(test)]
mod tests {
    use super::*;
    use testing::{assert_gradient, assert_near, tensor};

    fn example() -> (Tensor, Tensor, Tensor) {
        let clean = tensor(&[2.0, 0.5, -1.0, 0.1, 0.3, -0.2], &[2, 3]);
        let robust = tensor(&[0.4, 0.9, -0.3, 1.1, 0.2, -0.6], &[2, 3]);
        let labels = Tensor::new(&[0u32, 2], &Device::Cpu).unwrap();
        (clean, robust, labels)
    }

    fn mart() -> Mart {
        Mart {
            lambda: Some(5.0),
            ..Mart::default()
        }
    }

    #[test]
    fn the_loss_worked_by_hand() {
        let (clean, robust, labels) = example();
        let softmax = |z: [f64; 3]| {
            let sum: f64 = z.iter().map(|v| v.exp()).sum();
            z.map(|v| v.exp() / sum)
        };
        let p = softmax([2.0, 0.5, -1.0]);
        let q = softmax([0.4, 0.9, -0.3]);
        let boosted = -q[0].ln() - (1.0001 - q[1] + 1e-12).ln();
        let divergence: f64 = (0..3).map(|k| p[k] * (p[k].ln() - (q[k] + 1e-12).ln())).sum();
        let expected = boosted + 5.0 * divergence * (1.0000001 - p[0]);
        let loss = mart()
            .loss(&clean, &robust, &labels, &tensor(&[1.0, 1.0], &[2]))
            .unwrap();
        assert_near("loss", &loss.get(0).unwrap(), &tensor(&[expected], &[]), 1e-12);
    }

    #[test]
    fn gradients_flow_through_both_predictions() {
        let (clean, robust, labels) = example();
        let everyone = tensor(&[1.0, 1.0], &[2]);
        for boost in [Boost::Adversarial, Boost::Natural, Boost::None] {
            let mart = Mart { boost, ..mart() };
            assert_gradient("clean", &clean, |clean| mart.loss(clean, &robust, &labels, &everyone));
            assert_gradient("robust", &robust, |robust| {
                mart.loss(&clean, robust, &labels, &everyone)
            });
        }
    }

    #[test]
    fn the_share_is_kept_by_the_example() {
        let like = tensor(&[0.0], &[1]);
        let ids: Vec<u64> = (0..2000).collect();
        let half = Mart { share: 0.5, ..mart() };
        let kept = reference::doubles(&half.regularized(&ids, &like).unwrap());
        // Binomial(2000, ½): standard deviation 22.
        assert!((kept.iter().sum::<f64>() - 1000.0).abs() < 110.0);
        let turned: Vec<u64> = ids.iter().rev().copied().collect();
        let mut again = reference::doubles(&half.regularized(&turned, &like).unwrap());
        again.reverse();
        assert_eq!(kept, again);
        let whole = |share, value| {
            let kept = Mart { share, ..mart() }.regularized(&ids, &like).unwrap();
            assert!(reference::doubles(&kept).iter().all(|&flag| flag == value));
        };
        whole(0.0, 0.0);
        whole(1.0, 1.0);
    }
}
