//! The properties of every attack, for every loss: the ball, the box, its example, the network as it
//! was; and that it is an attack at all.

use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use models::Classifier;
use proptest::prelude::*;
use random::Stream;
use reference::doubles;
use serde_json::json;

use crate::fixtures::{setting, waves};
use crate::{Attack, Batch, BatchNorm, Loss, Norm, Pgd, Pixels, Setting, Start, Threat, select_rows};
use testing::{Linear, Net, Wave, assert_near, tensor};

const SHAPE: [usize; 3] = [1, 2, 3];

fn threat(norm: Norm, epsilon: &str) -> Threat {
    Threat {
        norm,
        epsilon: epsilon.parse().unwrap(),
    }
}

fn pgd(steps: u64, step_size: &str) -> Pgd {
    Pgd {
        steps: Some(steps),
        step_size: Some(step_size.parse().unwrap()),
        ..Pgd::default()
    }
}

fn inside(threat: &Threat, clean: &Tensor, images: &Tensor) -> bool {
    let near = doubles(&threat.distances(clean, images).unwrap());
    near.iter().all(|&distance| distance <= threat.epsilon.value() + 1e-12)
        && doubles(images).iter().all(|value| (0.0..=1.0).contains(value))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn images_stay_in_the_ball_and_the_box(
        seed: u64, l2: bool, thousandths in 0u64..900, steps in 1u64..5, start in 0usize..3, clip_start: bool, loss in 0usize..4,
    ) {
        let threat = Threat { norm: if l2 { Norm::L2 } else { Norm::Linf }, epsilon: Pixels::new(thousandths, 1000) };
        let starts = [Start::None, Start::Uniform, Start::Gaussian { sigma: Pixels::new(1, 10) }];
        let losses = [Loss::CrossEntropy, Loss::Kl, Loss::Cw { kappa: 50.0 }, Loss::Dlr];
        let attack = Pgd { start: starts[start], clip_start, loss: losses[loss], ..pgd(steps, "0.1") };
        let batch = waves(3, SHAPE, 3);
        let found = attack.perturb(&Wave::new(3, 6, 5.0), &batch, &threat, &Stream::new(seed)).unwrap();
        prop_assert!(inside(&threat, &batch.images, &found.images));
        if thousandths == 0 {
            prop_assert_eq!(doubles(&found.images), doubles(&batch.images));
        }
    }

    #[test]
    fn an_example_does_not_see_its_companions(seed: u64, l2: bool, restarts in 1u64..4) {
        let threat = threat(if l2 { Norm::L2 } else { Norm::Linf }, "0.3");
        let attack = Pgd { restarts, ..pgd(3, "0.1") };
        let (batch, wave) = (waves(4, SHAPE, 3), Wave::new(3, 6, 5.0));
        let together = attack.perturb(&wave, &batch, &threat, &Stream::new(seed)).unwrap();
        for rows in [vec![2], vec![3, 0]] {
            let alone = attack.perturb(&wave, &batch.select(&rows).unwrap(), &threat, &Stream::new(seed)).unwrap();
            assert_near("alone", &alone.images, &select_rows(&together.images, &rows).unwrap(), 1e-12);
        }
    }
}

#[test]
fn radius_zero_is_the_identity() {
    let batch = waves(3, SHAPE, 3);
    for norm in [Norm::Linf, Norm::L2] {
        for start in [
            Start::None,
            Start::Uniform,
            Start::Gaussian {
                sigma: Pixels::new(1, 2),
            },
        ] {
            let attack = Pgd { start, ..pgd(2, "0.1") };
            let found = attack
                .perturb(&Wave::new(3, 6, 5.0), &batch, &threat(norm, "0"), &Stream::new(1))
                .unwrap();
            assert_eq!(doubles(&found.images), doubles(&batch.images));
        }
    }
}

/// Cross entropy on the closed-form worst images of a two-class linear network minus that on the attack's.
fn shortfall(attack: &dyn Attack, norm: Norm, epsilon: &str) -> f64 {
    let weight = [0.9, -0.4, 0.7, 1.3, -0.2, 0.6, -0.5, 0.3, 0.8, 0.4, -1.1, 0.2];
    let linear = Linear {
        weight: tensor(&weight, &[2, 6]),
        bias: tensor(&[0.1, -0.3], &[2]),
    };
    let pixels = [0.4, 0.5, 0.6, 0.45, 0.55, 0.5, 0.6, 0.4, 0.5, 0.55, 0.5, 0.45];
    let images = tensor(&pixels, &[2, 1, 2, 3]);
    let labels = Tensor::new(&[0u32, 1], images.device()).unwrap();
    // Away from the label's weights and towards the other's, as far as the ball allows.
    let towards: Vec<f64> = (0..6).map(|i| weight[6 + i] - weight[i]).collect();
    let length = towards.iter().map(|v| v * v).sum::<f64>().sqrt();
    let threat = threat(norm, epsilon);
    let worst = |sign: f64| {
        towards
            .iter()
            .map(move |&v| threat.epsilon.value() * sign * if norm == Norm::Linf { v.signum() } else { v / length })
    };
    let change: Vec<f64> = worst(1.0).chain(worst(-1.0)).collect();
    let expected = (&images + tensor(&change, &[2, 1, 2, 3])).unwrap();
    let batch = Batch {
        images,
        labels,
        ids: vec![0, 1],
    };
    let found = attack.perturb(&linear, &batch, &threat, &Stream::new(5)).unwrap();
    assert!(inside(&threat, &batch.images, &found.images));
    let loss = |images: &Tensor| {
        let logits = linear.logits(images, models::Mode::Eval).unwrap();
        doubles(&crate::losses::cross_entropy(&logits, &batch.labels).unwrap())
    };
    let pairs = loss(&expected).into_iter().zip(loss(&found.images));
    pairs.map(|(best, found)| best - found).fold(0.0, f64::max)
}

/// Those that follow a loss as far as the ball allows, whether or not the network is wrong already.
const CLIMBERS: [&str; 5] = ["fgsm", "pgd", "cw", "mi-fgsm", "di-fgsm"];

#[test]
fn every_climber_reaches_the_closed_form_on_a_linear_network() {
    for norm in [Norm::Linf, Norm::L2] {
        let setting = Setting {
            classes: 2,
            threat: threat(norm, "0.1"),
            ..setting(crate::Family::Cifar, norm)
        };
        for name in CLIMBERS {
            let attack = crate::builtin().parse(name, serde_json::json!({}), &setting).unwrap();
            let shortfall = shortfall(attack.method.as_ref(), norm, "0.1");
            // From a random start, L2 steps turn towards the best direction without quite reaching it; so do steps
            // along gradients that miss the pixels which a shrunk image has not.
            let allowed = match (norm, name) {
                (Norm::Linf, _) => 1e-9,
                (Norm::L2, "di-fgsm") => 0.05,
                (Norm::L2, _) => 0.02,
            };
            assert!(shortfall < allowed, "{name} under {norm} falls short by {shortfall}");
        }
    }
}

#[test]
#[should_panic(expected = "falls short")]
fn a_missing_attack_is_caught() {
    let shortfall = shortfall(&crate::Natural {}, Norm::Linf, "0.1");
    assert!(shortfall < 0.02, "natural falls short by {shortfall}");
}

#[test]
fn an_attack_leaves_the_network_as_it_was() {
    let net = Net::small();
    let values = |net: &Net| net.tensors.values().map(|var| doubles(var)).collect::<Vec<_>>();
    let before = values(&net);
    let batch = waves(4, [3, 8, 8], 10);
    let attack = |batch_norm| {
        let attack = Pgd {
            batch_norm,
            loss: Loss::Kl,
            restarts: 2,
            ..pgd(2, "0.01")
        };
        attack
            .perturb(&net, &batch, &threat(Norm::Linf, "0.03"), &Stream::new(3))
            .unwrap()
            .images
    };
    let (eval, batch_statistics) = (attack(BatchNorm::Eval), attack(BatchNorm::BatchStatistics));
    assert_eq!(values(&net), before);
    assert_ne!(doubles(&eval), doubles(&batch_statistics));
    attack(BatchNorm::Train);
    assert_ne!(values(&net), before, "train mode lets the running statistics learn");
}

/// Every attack, with budgets that fit a test. `settings` has 10 classes.
fn quick(setting: &Setting) -> Vec<(&'static str, Arc<dyn Attack>)> {
    let configured = [
        ("fgsm", json!({ "start": "uniform" })),
        ("pgd", json!({ "steps": 3, "step_size": "0.1", "restarts": 2 })),
        ("cw", json!({ "steps": 3, "step_size": "0.1" })),
        ("mi-fgsm", json!({ "steps": 3 })),
        ("di-fgsm", json!({ "steps": 3, "rate": 0.5 })),
        ("ti-fgsm", json!({ "steps": 3, "probability": 0.5, "rate": 0.5 })),
        ("apgd", json!({ "steps": 12, "restarts": 2 })),
        (
            "apgd",
            json!({ "steps": 12, "restarts": 2, "loss": "dlr", "keep": "highest-loss" }),
        ),
        ("apgd-t", json!({ "steps": 8, "targets": 3, "restarts": 2 })),
        ("fab", json!({ "steps": 8, "restarts": 2, "aim": { "targets": 3 } })),
        ("fab", json!({ "steps": 8, "restarts": 2, "aim": "nearest" })),
        ("square", json!({ "queries": 30, "restarts": 2 })),
        ("spsa", json!({ "steps": 3, "samples": 8 })),
        (
            "auto-attack",
            json!({
                "version": "custom", "attacks": ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"],
                "steps": 6, "queries": 12, "targets": 2,
            }),
        ),
    ];
    let registry = crate::builtin();
    let parse = |(name, config)| (name, registry.parse(name, config, setting).unwrap().method);
    configured.into_iter().map(parse).collect()
}

#[test]
fn no_attack_escapes_these_tests() {
    let covered: BTreeSet<_> = quick(&setting(crate::Family::Cifar, Norm::Linf))
        .iter()
        .map(|method| method.0)
        .collect();
    let all: BTreeSet<_> = crate::builtin().entries().iter().map(|entry| entry.name).collect();
    assert_eq!(all.difference(&covered).collect::<Vec<_>>(), [&"natural"]);
}

/// A batch whose labels are what the network predicts, except for the last.
fn right(network: &dyn Classifier, mut batch: Batch) -> Batch {
    let logits = network.logits(&batch.images, models::Mode::Eval).unwrap();
    let mut labels: Vec<u32> = crate::losses::prediction(&logits).unwrap().to_vec1().unwrap();
    let last = labels.len() - 1;
    labels[last] = (labels[last] + 1) % logits.dims()[1] as u32;
    batch.labels = Tensor::new(labels, &candle_core::Device::Cpu).unwrap();
    batch
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn attacks_keep_to_the_ball_the_box_and_their_example(seed: u64, l2: bool, thousandths in 0u64..700) {
        let setting = Setting {
            threat: Threat { norm: if l2 { Norm::L2 } else { Norm::Linf }, epsilon: Pixels::new(thousandths, 1000) },
            ..setting(crate::Family::Cifar, Norm::Linf)
        };
        let wave = Wave::new(10, 18, 1.5);
        let batch = right(&wave, waves(5, [2, 3, 3], 10));
        let stream = Stream::new(seed);
        for (name, attack) in quick(&setting) {
            let together = attack.perturb(&wave, &batch, &setting.threat, &stream).unwrap();
            prop_assert!(inside(&setting.threat, &batch.images, &together.images), "{} left", name);
            if thousandths == 0 {
                prop_assert_eq!(doubles(&together.images), doubles(&batch.images), "{} moved", name);
            }
            let (mut cost, mut zero_gradients) = (crate::Cost::default(), 0);
            for rows in [vec![4], vec![2, 0], vec![3, 1]] {
                let alone = attack.perturb(&wave, &batch.select(&rows).unwrap(), &setting.threat, &stream).unwrap();
                assert_near(name, &alone.images, &select_rows(&together.images, &rows).unwrap(), 1e-9);
                let queries = together.queries.as_ref().map(|all| rows.iter().map(|&row| all[row]).collect());
                prop_assert_eq!(&alone.queries, &queries, "{}", name);
                cost += alone.cost;
                zero_gradients += alone.zero_gradients;
            }
            prop_assert_eq!(cost, together.cost, "{}: an example costs what it costs alone", name);
            prop_assert_eq!(zero_gradients, together.zero_gradients, "{}", name);
        }
    }
}

#[test]
fn an_example_that_stands_costs_the_ceiling() {
    let wave = Wave::new(10, 18, 1.5);
    let batch = right(&wave, waves(4, [2, 3, 3], 10)).select(&[0, 1, 2]).unwrap();
    for norm in [Norm::Linf, Norm::L2] {
        let setting = Setting {
            threat: threat(norm, "0"),
            ..setting(crate::Family::Cifar, norm)
        };
        let mut known = 0;
        for (name, attack) in quick(&setting) {
            let cost = attack
                .perturb(&wave, &batch, &setting.threat, &Stream::new(1))
                .unwrap()
                .cost;
            if let Some(ceiling) = attack.ceiling(10) {
                known += 1;
                let three = crate::Cost {
                    forwards: 3 * ceiling.forwards,
                    backwards: 3 * ceiling.backwards,
                };
                assert_eq!(cost, three, "{name}");
            }
        }
        assert_eq!(known, 8, "all that leave broken examples alone");
    }
}

#[test]
fn a_real_network_gives_each_example_the_same_bits_in_any_batch_and_order() {
    let network = models::build("tiny-cnn", [1, 8, 8], 10, &Stream::new(0)).unwrap();
    let mut batch = waves(5, [1, 8, 8], 10);
    batch.images = batch.images.to_dtype(DType::F32).unwrap();
    let batch = right(&network, batch);
    for (norm, epsilon) in [(Norm::Linf, "0.05"), (Norm::L2, "0.4")] {
        let setting = Setting {
            threat: threat(norm, epsilon),
            ..setting(crate::Family::Mnist, norm)
        };
        for (name, attack) in quick(&setting) {
            let perturb = |batch: &Batch| {
                attack
                    .perturb(&network, batch, &setting.threat, &Stream::new(9))
                    .unwrap()
                    .images
            };
            let together = perturb(&batch);
            for rows in [vec![0], vec![1], vec![4, 3, 2]] {
                let part = perturb(&batch.select(&rows).unwrap());
                let expected = select_rows(&together, &rows).unwrap();
                assert_eq!(doubles(&part), doubles(&expected), "{name} {norm}, examples {rows:?}");
            }
        }
    }
}
