//! The attacks that stop at the first success, on linear networks, where it is known which images can be broken.
//!
//! Logits W·x + b. The boundary to class k is the plane f_k = 0, f_k = z_k − z_y; in a ball of radius ε, f_k grows by at
//! most ε·‖w_k − w_y‖ in the dual norm, and by Σ |w|·min(ε, room) under L∞ where `[0, 1]` leaves a pixel little room.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use models::{Classifier, Mode};
use random::Stream;
use reference::doubles;
use serde_json::{Value, json};

use crate::fixtures::setting;
use crate::losses::prediction;
use crate::{Apgd, Attack, Batch, Family, Keep, Loss, Norm, Pixels, Square, Threat};
use testing::{Linear, assert_near, tensor};

const CLASSES: usize = 10;
/// One channel; the last row and column, which Square never touches, have no weight.
const SIDE: usize = 4;
const PIXELS: usize = SIDE * SIDE;

/// Which classes can be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rivals {
    /// All ten.
    All,
    /// The first two: the others' logits are low and never change. Here the worst image is that of highest cross
    /// entropy or DLR, which among many classes it need not be.
    Two,
}

/// Ten classes, and five images in the middle of `[0, 1]`, classified correctly.
fn problem(rivals: Rivals) -> (Linear, Batch) {
    let reachable = |class: usize| rivals == Rivals::All || class < 2;
    let free = |pixel: usize| pixel % SIDE < SIDE - 1 && pixel / SIDE < SIDE - 1;
    let weight = |class: usize, pixel: usize| {
        let wave = (1.7 * (class * PIXELS + pixel) as f64 + 0.3).sin();
        if free(pixel) && reachable(class) { wave } else { 0.0 }
    };
    let weight: Vec<f64> = (0..CLASSES * PIXELS).map(|i| weight(i / PIXELS, i % PIXELS)).collect();
    let bias = |class: usize| {
        if reachable(class) {
            0.2 * (2.1 * class as f64).cos()
        } else {
            -50.0
        }
    };
    let bias: Vec<f64> = (0..CLASSES).map(bias).collect();
    let linear = Linear {
        weight: tensor(&weight, &[CLASSES, PIXELS]),
        bias: tensor(&bias, &[CLASSES]),
    };
    let images: Vec<f64> = (0..5 * PIXELS).map(|i| 0.5 + 0.1 * (0.9 * i as f64).sin()).collect();
    let batch = labelled(&linear, tensor(&images, &[5, 1, SIDE, SIDE]));
    (linear, batch)
}

fn labelled(linear: &Linear, images: Tensor) -> Batch {
    let labels = prediction(&linear.logits(&images, Mode::Eval).unwrap()).unwrap();
    let ids = (0..images.dims()[0] as u64).collect();
    Batch { images, labels, ids }
}

/// f_k and w_k − w_y for every wrong class.
fn planes(linear: &Linear, batch: &Batch, row: usize) -> Vec<(f64, Vec<f64>)> {
    let label = batch.labels.to_vec1::<u32>().unwrap()[row] as usize;
    let weight = linear.weight.to_vec2::<f64>().unwrap();
    let bias = doubles(&linear.bias);
    let image = doubles(&batch.images.get(row).unwrap());
    let wrong = (0..CLASSES).filter(|&class| class != label);
    let plane = |class: usize| {
        let normal: Vec<f64> = weight[class].iter().zip(&weight[label]).map(|(a, b)| a - b).collect();
        let value = normal.iter().zip(&image).map(|(w, x)| w * x).sum::<f64>() + bias[class] - bias[label];
        (value, normal)
    };
    wrong.map(plane).collect()
}

/// How far each image is from the boundary, [0, 1] not counted.
fn distances(linear: &Linear, batch: &Batch, norm: Norm) -> Vec<f64> {
    let dual = |normal: &[f64]| match norm {
        Norm::Linf => normal.iter().map(|w| w.abs()).sum::<f64>(),
        Norm::L2 => normal.iter().map(|w| w * w).sum::<f64>().sqrt(),
    };
    let nearest = |row| {
        let planes = planes(linear, batch, row);
        planes
            .iter()
            .map(|(value, normal)| -value / dual(normal))
            .fold(f64::INFINITY, f64::min)
    };
    (0..batch.ids.len()).map(nearest).collect()
}

fn attack(name: &str, config: Value, norm: Norm) -> Arc<dyn Attack> {
    let setting = setting(Family::Cifar, norm);
    crate::builtin().parse(name, config, &setting).unwrap().method
}

/// Which examples break where each has a ball of `factor` times its distance to the boundary.
fn broken_at(rivals: Rivals, name: &str, config: &Value, norm: Norm, factor: f64) -> Vec<bool> {
    let (linear, batch) = problem(rivals);
    let attack = attack(name, config.clone(), norm);
    let reach = distances(&linear, &batch, norm);
    let breaks = |row: usize| {
        let alone = batch.select(&[row]).unwrap();
        let threat = Threat {
            norm,
            epsilon: Pixels::new((factor * reach[row] * 1e9) as u64, 1_000_000_000),
        };
        let found = attack.perturb(&linear, &alone, &threat, &Stream::new(3)).unwrap();
        let moved = doubles(&threat.distances(&alone.images, &found.images).unwrap())[0];
        assert!(moved <= threat.epsilon.value() + 1e-12, "{name}: {moved}");
        let seen = prediction(&linear.logits(&found.images, Mode::Eval).unwrap()).unwrap();
        seen.to_vec1::<u32>().unwrap() != alone.labels.to_vec1::<u32>().unwrap()
    };
    (0..batch.ids.len()).map(breaks).collect()
}

#[test]
fn attacks_break_what_can_be_broken_and_nothing_else() {
    let check = |rivals: Rivals, name: &str, config: Value, norm: Norm, enough: f64| {
        // Two in a hundred short of the boundary no attack gets through; `enough` is where this one must.
        let at = |factor| broken_at(rivals, name, &config, norm, factor);
        assert_eq!(at(0.98), [false; 5], "{rivals:?} {name} {config} {norm}");
        assert_eq!(at(enough), [true; 5], "{rivals:?} {name} {config} {norm}");
    };
    for norm in [Norm::Linf, Norm::L2] {
        check(Rivals::Two, "apgd", json!({}), norm, 1.01);
        check(Rivals::Two, "apgd", json!({ "loss": "dlr" }), norm, 1.01);
        check(Rivals::Two, "apgd-t", json!({}), norm, 1.01);
        // A step goes 1.05 of the way to the plane; after a success, 0.945 of it is left, and the next step, with a
        // twentieth of the path from the image in it, ends at 1.0052.
        check(Rivals::All, "fab", json!({}), norm, 1.006);
        check(Rivals::All, "fab", json!({ "aim": "nearest" }), norm, 1.006);
        let all = json!(["apgd-ce", "apgd-t", "fab-t", "square"]);
        let short = json!({ "version": "custom", "attacks": all, "steps": 20, "queries": 100 });
        check(Rivals::All, "auto-attack", short, norm, 1.006);
        // Signs and lengths of an estimated gradient are not those of the gradient.
        check(Rivals::Two, "spsa", json!({ "steps": 40, "samples": 32 }), norm, 1.3);
    }
    // Where all 9 pixels count, the corner is found; a random search on a sphere comes less near.
    check(Rivals::Two, "square", json!({ "queries": 1500 }), Norm::Linf, 1.0001);
    check(Rivals::Two, "square", json!({ "queries": 1500 }), Norm::L2, 3.0);
}

#[test]
fn the_published_versions_break_what_can_be_broken() {
    for config in [json!({ "version": "standard" }), json!({ "version": "plus" })] {
        let broken = broken_at(Rivals::All, "auto-attack", &config, Norm::Linf, 1.006);
        assert_eq!(broken, [true; 5], "{config}");
    }
}

#[test]
fn fab_finds_the_smallest_change_at_the_edge_of_the_box() {
    let (linear, batch) = problem(Rivals::All);
    // Half of the pixels can hardly move.
    let pixels = doubles(&batch.images).into_iter().enumerate();
    let edge: Vec<f64> = pixels
        .map(|(i, pixel)| {
            if i % 3 == 0 {
                0.01
            } else if i % 3 == 1 {
                0.98
            } else {
                pixel
            }
        })
        .collect();
    let batch = labelled(&linear, tensor(&edge, &[5, 1, SIDE, SIDE]));
    let mut examples = 0;
    for row in 0..5 {
        let clean = doubles(&batch.images.get(row).unwrap());
        let gain = |normal: &[f64], epsilon: f64| -> f64 {
            let room = |w: f64, x: f64| if w > 0.0 { 1.0 - x } else { x };
            normal
                .iter()
                .zip(&clean)
                .map(|(&w, &x)| w.abs() * epsilon.min(room(w, x)))
                .sum()
        };
        let reaches = |epsilon: f64| {
            planes(&linear, &batch, row)
                .iter()
                .any(|(value, normal)| value + gain(normal, epsilon) > 0.0)
        };
        if !reaches(1.0) {
            continue;
        }
        let (mut low, mut high) = (0.0, 1.0);
        while high - low > 1e-9 {
            let middle = (low + high) / 2.0;
            if reaches(middle) { high = middle } else { low = middle }
        }
        let breaks = |factor: f64| {
            let threat = Threat {
                norm: Norm::Linf,
                epsilon: Pixels::new((factor * high * 1e9) as u64, 1_000_000_000),
            };
            let alone = batch.select(&[row]).unwrap();
            let fab = attack("fab", json!({}), Norm::Linf);
            let found = fab.perturb(&linear, &alone, &threat, &Stream::new(0)).unwrap();
            doubles(&found.images) != clean
        };
        assert!(!breaks(0.999), "example {row} is {high} away");
        assert!(breaks(1.01), "example {row} is {high} away");
        examples += 1;
    }
    assert!(examples >= 3, "only {examples} images can be broken at all");
}

#[test]
fn apgd_reaches_the_worst_image_at_any_radius() {
    // Two classes, so that the worst image is known; some pixels meet the edge of [0, 1].
    let weight = [0.9, -0.4, 0.7, 1.3, -0.2, 0.6, -0.5, 0.3, 0.8, 0.4, -1.1, 0.2];
    let linear = Linear {
        weight: tensor(&weight, &[2, 6]),
        bias: tensor(&[1.0, -1.0], &[2]),
    };
    let pixels = [0.4, 0.05, 0.6, 0.97, 0.5, 0.5];
    let images = tensor(&pixels, &[1, 1, 2, 3]);
    let batch = Batch {
        images,
        labels: Tensor::new(&[0u32], &Device::Cpu).unwrap(),
        ids: vec![7],
    };
    let towards: Vec<f64> = (0..6).map(|i| weight[6 + i] - weight[i]).collect();
    for thousandths in [0, 1, 10, 100, 300, 700, 1000] {
        let threat = Threat {
            norm: Norm::Linf,
            epsilon: Pixels::new(thousandths, 1000),
        };
        let epsilon = threat.epsilon.value();
        let worst: Vec<f64> = pixels
            .iter()
            .zip(&towards)
            .map(|(x, w)| (x + epsilon * w.signum()).clamp(0.0, 1.0))
            .collect();
        let apgd = Apgd {
            keep: Keep::HighestLoss,
            ..Apgd::default()
        };
        let found = apgd.perturb(&linear, &batch, &threat, &Stream::new(1)).unwrap();
        assert_near("linf", &found.images, &tensor(&worst, &[1, 1, 2, 3]), 1e-12);
    }
    // Under L2 as long as no pixel meets the edge.
    let length = towards.iter().map(|w| w * w).sum::<f64>().sqrt();
    for thousandths in [1, 10, 40] {
        let threat = Threat {
            norm: Norm::L2,
            epsilon: Pixels::new(thousandths, 1000),
        };
        let epsilon = threat.epsilon.value();
        let worst: Vec<f64> = pixels
            .iter()
            .zip(&towards)
            .map(|(x, w)| x + epsilon * w / length)
            .collect();
        let apgd = Apgd {
            keep: Keep::HighestLoss,
            restarts: 2,
            ..Apgd::default()
        };
        let found = apgd.perturb(&linear, &batch, &threat, &Stream::new(1)).unwrap();
        // Steps along the sphere turn towards the best direction without quite reaching it.
        assert_near("l2", &found.images, &tensor(&worst, &[1, 1, 2, 3]), 1e-3 * epsilon);
    }
}

#[test]
fn queries_are_counted_until_success() {
    let (linear, batch) = problem(Rivals::Two);
    let reach = distances(&linear, &batch, Norm::Linf);
    let far = reach.iter().copied().fold(0.0, f64::max);
    let mut labels = batch.labels.to_vec1::<u32>().unwrap();
    labels[4] = (labels[4] + 1) % CLASSES as u32;
    let batch = Batch {
        labels: Tensor::new(labels, &Device::Cpu).unwrap(),
        ..batch
    };
    let threat = Threat {
        norm: Norm::Linf,
        epsilon: Pixels::new((0.9 * far * 1e9) as u64, 1_000_000_000),
    };
    for attack in [
        Arc::new(Square {
            queries: 600,
            ..Square::default()
        }) as Arc<dyn Attack>,
        attack("spsa", json!({ "steps": 30, "samples": 128 }), Norm::Linf),
    ] {
        let found = attack.perturb(&linear, &batch, &threat, &Stream::new(2)).unwrap();
        let queries = found.queries.unwrap();
        assert_eq!(
            (queries[4].asked, queries[4].until_success),
            (0, Some(0)),
            "wrong from the start"
        );
        let most = attack.ceiling(CLASSES).unwrap().forwards - 1;
        let seen = prediction(&linear.logits(&found.images, Mode::Eval).unwrap()).unwrap();
        let wrong: Vec<u8> = seen.ne(&batch.labels).unwrap().to_vec1().unwrap();
        for (row, queries) in queries.iter().enumerate() {
            assert_eq!(
                queries.until_success.is_some(),
                wrong[row] == 1,
                "{attack:?}, example {row}"
            );
            match queries.until_success {
                Some(success) => assert!(success == queries.asked && success < most, "{attack:?}: {queries:?}"),
                None => assert_eq!(queries.asked, most, "{attack:?}"),
            }
        }
        let outcomes: Vec<bool> = wrong[..4].iter().map(|&wrong| wrong == 1).collect();
        assert!(
            outcomes.contains(&true) && outcomes.contains(&false),
            "{attack:?} tells both apart"
        );
        // Everything asked, and the clean images once.
        let asked: u64 = queries.iter().map(|queries| queries.asked).sum();
        assert_eq!((found.cost.forwards, found.cost.backwards), (asked + 5, 0));
    }
}

#[test]
fn a_network_that_never_varies_is_left_alone() {
    // The gradient is zero everywhere: no attack may divide by it.
    let linear = Linear {
        weight: tensor(&[0.0; CLASSES * 4], &[CLASSES, 4]),
        bias: tensor(&[1.0, 0.0, 0.5, 0.2, 0.1, -0.3, 0.4, 0.3, 0.6, 0.7], &[CLASSES]),
    };
    let batch = labelled(&linear, tensor(&[0.0, 0.3, 0.6, 1.0], &[1, 1, 2, 2]));
    for norm in [Norm::Linf, Norm::L2] {
        let threat = Threat {
            norm,
            epsilon: "0.3".parse().unwrap(),
        };
        let config = json!({ "version": "custom", "attacks": ["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"], "steps": 10, "queries": 50 });
        let found = attack("auto-attack", config, norm)
            .perturb(&linear, &batch, &threat, &Stream::new(0))
            .unwrap();
        assert_eq!(doubles(&found.images), doubles(&batch.images));
        assert_eq!(found.zero_gradients, 1);
        let loss = Apgd {
            loss: Loss::Dlr,
            keep: Keep::HighestLoss,
            ..Apgd::default()
        };
        let found = loss.perturb(&linear, &batch, &threat, &Stream::new(0)).unwrap();
        assert!(doubles(&found.images).iter().all(|pixel| (0.0..=1.0).contains(pixel)));
    }
}
