//! Standard adversarial training: Madry et al. 2018, arXiv:1706.06083.
//!
//! loss = mean_B CE(f(x′), y), x′ = argmax over the ball of CE(f(x′), y)
//!
//! Images `[B, C, H, W]` in `[0, 1]`; logits `[B, K]`; result: scalar, nats.
//! The inner attack starts uniformly in the ball.
//!
//! `treat` is Figure 1 of the MART paper (Wang et al. 2020): a group T of examples, which a teacher names, is
//! trained differently from the rest.
//!
//! - `clean`: x′ = x in T.
//! - `fgsm`: x′ = x + ε · sign ∇CE(f(x), y) in T, cut to `[0, 1]`: one step as long as the radius, from the image.
//! - `kl`: loss = mean_B [ CE(f(x′), y) + λ · 1[x ∈ T] · KL(p(x) ‖ p(x′)) ]. Gradients reach both sides of the KL term.
//!   Training passes: x, of the whole batch, then x′, as in MART.
//!
//! The paper gives neither λ nor the start of its FGSM: λ is MART's 5 unless given.

use attacks::losses::{cross_entropy, kl};
use attacks::{Family, Fgsm, Invalid, Loss, Method, Norm, Setting, Start, replace_rows, select_rows};
use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::teacher::flags;
use crate::{Augmentation, Decay, Defense, Group, InnerAttack, Length, Optimizer, Recipe, Schedule, Step};

/// Standard adversarial training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Standard {
    /// The inner attack; from a uniform start, on cross entropy.
    #[serde(default)]
    pub attack: InnerAttack,
    /// What is done otherwise to some examples, which a `teacher` names; nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub treat: Option<Treat>,
}

/// What is done otherwise to a group of examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Treat {
    /// T: the group.
    pub examples: Group,
    /// What is done to it.
    pub how: Treatment,
    /// λ, the weight of the KL term of `kl`; 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lambda: Option<f64>,
}

/// How a group of examples is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Treatment {
    /// Unperturbed.
    Clean,
    /// Perturbed by one step as long as the radius, from the image, in place of the inner attack.
    Fgsm,
    /// With λ · KL between the clean and the perturbed prediction.
    Kl,
}

impl Method for Standard {
    const NAME: &'static str = "standard";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "cross entropy on the images of an inner attack";
    const SOURCE: &'static str = "Madry et al. 2018, arXiv:1706.06083";
    const EXAMPLE: &'static str = r#"{"attack": {"steps": 7}}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        if let Some(treat) = &mut self.treat {
            treat.resolve().map_err(|invalid| invalid.within("treat"))?;
        }
        self.attack
            .resolve(setting, Start::Uniform, Loss::CrossEntropy)
            .map_err(|invalid| invalid.within("attack"))
    }
}

impl Treat {
    fn resolve(&mut self) -> std::result::Result<(), Invalid> {
        match (self.how, self.lambda) {
            (Treatment::Kl, lambda) => {
                crate::fields::check_weight("lambda", *self.lambda.insert(lambda.unwrap_or(5.0)))
            }
            (_, None) => Ok(()),
            (_, Some(_)) => Err(Invalid::new("lambda", "only `how: kl` has a lambda; leave it out")),
        }
    }

    /// One value per example `[B]`, of the treatment `kl`. `treated` `[B]` holds 1 in T, else 0.
    pub fn loss(&self, clean: &Tensor, robust: &Tensor, labels: &Tensor, treated: &Tensor) -> Result<Tensor> {
        let divergence = (kl(clean, robust)? * treated)?;
        cross_entropy(robust, labels)? + (divergence * crate::fields::resolved("treat.lambda", self.lambda)?)?
    }
}

impl Standard {
    /// x′. The whole batch is attacked and the images of the treated group are replaced, so that the other images are the
    /// same, bit for bit, as without a treatment, also where the attack uses batch statistics.
    fn perturb(&self, step: &mut Step<'_>) -> Result<Tensor> {
        let attacked = self.attack.perturb(step)?;
        let (group, how) = match &self.treat {
            Some(treat) if treat.how != Treatment::Kl => (treat.examples, treat.how),
            _ => return Ok(attacked),
        };
        let members = step.teacher.members(group)?;
        let rows: Vec<usize> = (0..members.len()).filter(|&row| members[row]).collect();
        if rows.is_empty() {
            return Ok(attacked);
        }
        let treated = match how {
            Treatment::Fgsm => {
                let fgsm = Fgsm {
                    loss: crate::fields::resolved("attack.loss", self.attack.loss)?,
                    batch_norm: crate::fields::resolved("attack.batch_norm", self.attack.batch_norm)?,
                    ..Fgsm::default()
                };
                let threat = self.attack.threat(step.threat);
                step.attack(&fgsm, &threat)?
            }
            _ => step.batch.images.clone(),
        };
        let images = replace_rows(&attacked, &rows, &select_rows(&treated, &rows)?)?;
        step.perturbed = Some(images.clone());
        Ok(images)
    }
}

impl Defense for Standard {
    fn objective(&self, step: &mut Step<'_>) -> Result<Tensor> {
        let adversarial = self.perturb(step)?;
        let labels = &step.batch.labels;
        let losses = match &self.treat {
            Some(treat) if treat.how == Treatment::Kl => {
                let clean_logits = step.train_logits(&step.batch.images)?;
                let robust_logits = step.train_logits(&adversarial)?;
                let treated = flags(&step.teacher.members(treat.examples)?, &clean_logits)?;
                treat.loss(&clean_logits, &robust_logits, labels, &treated)?
            }
            _ => cross_entropy(&step.train_logits(&adversarial)?, labels)?,
        };
        step.mean(&losses)
    }

    fn treats(&self) -> Option<Group> {
        self.treat.as_ref().map(|treat| treat.examples)
    }

    /// CIFAR: `config.json` of MadryLab/cifar10_challenge (f15682d). Digits: of MadryLab/mnist_challenge (3ee3643).
    fn authors_recipe(&self, setting: &Setting) -> Option<Recipe> {
        match (setting.threat.norm, setting.family) {
            (Norm::L2, _) => None,
            (Norm::Linf, Family::Cifar) => Some(Recipe {
                length: Length::Steps(80_000),
                batch: 128,
                optimizer: Optimizer::Sgd {
                    rate: 0.1,
                    momentum: 0.9,
                    nesterov: false,
                    weight_decay: 2e-4,
                    decay: Decay::All,
                },
                schedule: Schedule::Steps {
                    at: vec![40_000, 60_000],
                    factor: 0.1,
                },
                clip_gradient: None,
                augment: vec![Augmentation::Crop4, Augmentation::Flip],
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memory, TeacherPredictions};
    use attacks::{Batch, Cost};
    use candle_core::Device;
    use random::Stream;
    use serde_json::json;
    use testing::{Net, assert_gradient, assert_near, setting, tensor, waves};

    fn kl_on(examples: Group) -> Treat {
        let mut treat = Treat {
            examples,
            how: Treatment::Kl,
            lambda: None,
        };
        treat.resolve().unwrap();
        treat
    }

    #[test]
    fn the_loss_with_kl_worked_by_hand() {
        let clean = tensor(&[2.0, 0.5, -1.0, 0.1, 0.3, -0.2], &[2, 3]);
        let robust = tensor(&[0.4, 0.9, -0.3, 1.1, 0.2, -0.6], &[2, 3]);
        let labels = Tensor::new(&[0u32, 2], &Device::Cpu).unwrap();
        let treated = tensor(&[0.0, 1.0], &[2]);
        let softmax = |z: [f64; 3]| {
            let sum: f64 = z.iter().map(|v| v.exp()).sum();
            z.map(|v| v.exp() / sum)
        };
        let first = -softmax([0.4, 0.9, -0.3])[0].ln();
        let (p, q) = (softmax([0.1, 0.3, -0.2]), softmax([1.1, 0.2, -0.6]));
        let divergence: f64 = (0..3).map(|k| p[k] * (p[k] / q[k]).ln()).sum();
        let second = -q[2].ln() + 5.0 * divergence;
        let treat = kl_on(Group::Misclassified);
        let loss = |clean: &Tensor, robust: &Tensor| treat.loss(clean, robust, &labels, &treated);
        assert_near(
            "loss",
            &loss(&clean, &robust).unwrap(),
            &tensor(&[first, second], &[2]),
            1e-12,
        );
        assert_gradient("clean", &clean, |clean| loss(clean, &robust));
        assert_gradient("robust", &robust, |robust| loss(&clean, robust));
    }

    /// What a step of the defense does to six examples, of which 1 and 4 are S⁻ and 2 is S⁺.
    fn step_of(config: serde_json::Value) -> (Vec<f64>, Vec<f64>, Cost) {
        let net = Net::small();
        let batch = Batch {
            ids: (0..6).collect(),
            ..waves(6, [3, 8, 8], 10)
        };
        let setting = setting(Family::Cifar, Norm::Linf);
        let standard = crate::builtin().parse("standard", config, &setting).unwrap().method;
        let mut memory = Memory::default();
        let mut step = Step::new(&net, &batch, &setting.threat, Stream::new(1), 0, &mut memory);
        let mut groups = vec![None; 6];
        groups[1] = Some(Group::Misclassified);
        groups[4] = Some(Group::Misclassified);
        groups[2] = Some(Group::Correct);
        step.teacher = TeacherPredictions {
            weights: None,
            groups: Some(groups),
        };
        let loss = standard.objective(&mut step).unwrap();
        let images = reference::doubles(step.perturbed.as_ref().unwrap());
        (reference::doubles(&loss), images, step.cost)
    }

    #[test]
    fn a_treatment_touches_its_group_alone() {
        let (_, plain, cost) = step_of(json!({"attack": {"steps": 2}}));
        let clean = reference::doubles(&waves(6, [3, 8, 8], 10).images);
        let epsilon = setting(Family::Cifar, Norm::Linf).threat.epsilon.value();
        let example = |images: &[f64], row: usize| images[row * 192..(row + 1) * 192].to_vec();
        for (group, rows) in [("misclassified", &[1, 4][..]), ("correct", &[2])] {
            let treat = |how: &str| step_of(json!({"attack": {"steps": 2}, "treat": {"examples": group, "how": how}}));
            let (_, unperturbed, _) = treat("clean");
            let (_, fgsm, fgsm_cost) = treat("fgsm");
            let (_, kl, kl_cost) = treat("kl");
            assert_eq!(kl, plain);
            assert_eq!(kl_cost.forwards, cost.forwards + 6, "one clean pass");
            assert_eq!(fgsm_cost.backwards, cost.backwards + 6, "one step");
            for row in 0..6 {
                if !rows.contains(&row) {
                    assert_eq!(example(&unperturbed, row), example(&plain, row), "{group} {row}");
                    assert_eq!(example(&fgsm, row), example(&plain, row), "{group} {row}");
                    continue;
                }
                assert_eq!(example(&unperturbed, row), example(&clean, row), "{group} {row}");
                let (fgsm, clean) = (example(&fgsm, row), example(&clean, row));
                let full = |(a, b): (&f64, &f64)| {
                    let reached = (a - b).abs() > epsilon - 1e-9 || *a == 0.0 || *a == 1.0;
                    u32::from(reached)
                };
                // Every pixel with a gradient goes as far as it can.
                assert!(fgsm.iter().zip(&clean).map(full).sum::<u32>() > 180, "{group} {row}");
            }
        }
    }

    #[test]
    fn kl_adds_to_the_loss_of_its_group() {
        let loss = |config| step_of(config).0[0];
        let kl = |lambda: f64| {
            let treat = json!({"examples": "misclassified", "how": "kl", "lambda": lambda});
            loss(json!({"attack": {"steps": 2}, "treat": treat}))
        };
        let (none, one, two) = (kl(0.0), kl(1.0), kl(2.0));
        assert!(one > none + 1e-6, "{none} {one}");
        assert!((two - none - 2.0 * (one - none)).abs() < 1e-9, "{none} {one} {two}");
    }

    #[test]
    fn a_treatment_that_cannot_be_is_refused() {
        let setting = setting(Family::Cifar, Norm::Linf);
        let check = |treat: serde_json::Value, expected: &str| match crate::builtin().parse(
            "standard",
            json!({"treat": treat}),
            &setting,
        ) {
            Err(attacks::ParseError::Field { field, message }) => assert_eq!(field, expected, "{message}"),
            other => panic!("{other:?}"),
        };
        let with = |lambda: f64, how: &str| json!({"examples": "correct", "how": how, "lambda": lambda});
        check(with(-1.0, "kl"), "treat.lambda");
        check(with(1.0, "clean"), "treat.lambda");
        check(json!({"examples": "some", "how": "kl"}), "treat.examples");
        check(json!({"how": "kl"}), "treat");
        // A defense without one has the configuration, and with it the key, that it had before there were any.
        let plain = crate::builtin().parse("standard", json!({}), &setting).unwrap();
        assert!(plain.config.get("treat").is_none());
    }
}
