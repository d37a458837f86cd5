//! Every attack against the authors' code, in both precisions.

use candle_core::{DType, Tensor};
use models::{Classifier, Mode};
use random::Stream;
use reference::{Case, doubles};

use crate::losses::cross_entropy;
use crate::reference_auto_attack::{check_apgd, check_fab, check_fab_projection, check_square};
use crate::testing::{BOTH, Net, assert_near, assert_near_where, pixels, tolerance};
use crate::*;

#[test]
fn reference_attacks() {
    reference::run("attacks", &[], |case| {
        for dtype in BOTH {
            match case.kind() {
                "attack_network" => check_network(case, dtype),
                "attack_linf" => check_linf(case, dtype),
                "attack_l2_pgd" => check_l2_pgd(case, dtype),
                "attack_l2_trades" => check_l2_trades(case, dtype),
                "attack_anpgd" => check_anpgd(case, dtype),
                "attack_fosc" => check_fosc_attack(case, dtype),
                "attack_apgd" => check_apgd(case, dtype),
                "attack_fab_t" => check_fab(case, dtype),
                "fab_projection" => check_fab_projection(case, dtype),
                "attack_square" => check_square(case, dtype),
                _ => return false,
            }
        }
        true
    });
}

fn check_network(case: &Case, dtype: DType) {
    let net = Net::read(case, "", dtype);
    let shape = ["cin", "hw", "hw"].map(|name| case.meta["net"][name].as_u64().unwrap() as usize);
    let images = Tensor::zeros((2, shape[0], shape[1], shape[2]), dtype, &candle_core::Device::Cpu).unwrap();
    let logits = net.logits(&images, Mode::Eval).unwrap();
    assert_eq!(logits.dims(), [2, net.classes()]);
    assert!(doubles(&logits).iter().all(|value| value.is_finite()));
}

/// What every recorded attack has: a network and a batch.
pub(crate) struct Recorded {
    pub(crate) net: Net,
    pub(crate) batch: Batch,
}

impl Recorded {
    pub(crate) fn read(case: &Case, dtype: DType) -> Self {
        let images = case.input("x", dtype);
        let ids = (0..images.dim(0).unwrap() as u64).collect();
        let labels = case.indices("labels");
        Self {
            net: Net::read(&case.network(), "", dtype),
            batch: Batch { images, labels, ids },
        }
    }

    pub(crate) fn check_logits(&self, case: &Case, images: &Tensor, tolerance: f64) {
        let logits = self.net.logits(images, Mode::Eval).unwrap();
        assert_near("logits_adv", &logits, &case.result("logits_adv"), tolerance);
    }
}

fn steps_of(case: &Case) -> u64 {
    case.meta["hyper"]["steps"].as_u64().unwrap()
}

fn check_linf(case: &Case, dtype: DType) {
    let recorded = Recorded::read(case, dtype);
    let Recorded { net, batch } = &recorded;
    let hyper = &case.meta["hyper"];
    let epsilon = case.hyper("epsilon");
    let threat = Threat {
        norm: Norm::Linf,
        epsilon: pixels(epsilon),
    };
    let mut iterates = Vec::new();

    let loss = if hyper.get("kappa").is_some() {
        Loss::Cw {
            kappa: case.hyper("kappa"),
        }
    } else if hyper["loss"].as_str().is_some_and(|loss| loss.starts_with("KL")) {
        Loss::Kl
    } else if case.meta["source"].as_str().unwrap().contains("batch sum") {
        Loss::CwBatchSum
    } else {
        Loss::CrossEntropy
    };
    let found = if hyper.get("mu").is_some() {
        let attack = MiFgsm {
            steps: steps_of(case),
            step_size: Some(pixels(case.hyper("step_size"))),
            decay: case.hyper("mu"),
            ..MiFgsm::default()
        };
        iterates.push(batch.images.clone());
        attack.trace(net, batch, &threat, &Stream::new(0), &mut |_, images| {
            iterates.push(images.clone());
            Ok(())
        })
    } else {
        let start_text = hyper["start"].as_str().unwrap_or("x");
        let noise = if case.has("start_noise") {
            doubles(case.raw("start_noise"))
        } else {
            Vec::new()
        };
        let (start, draws) = match start_text {
            "x" => (Start::None, noise),
            text if text.contains("0.001*start_noise") => (
                Start::Gaussian {
                    sigma: Pixels::new(1, 1000),
                },
                noise,
            ),
            // The recorded noise is what was added; the draw behind it lies in [0, 1).
            _ => (
                Start::Uniform,
                noise.iter().map(|noise| (noise / epsilon + 1.0) / 2.0).collect(),
            ),
        };
        let one_step = hyper.get("steps").is_none_or(|steps| steps == 1);
        let attack = Pgd {
            steps: Some(if one_step { 1 } else { steps_of(case) }),
            step_size: Some(if hyper.get("step_size").is_none() {
                threat.epsilon
            } else {
                pixels(case.hyper("step_size"))
            }),
            start,
            clip_start: start_text.contains("clip("),
            loss,
            ..Pgd::default()
        };
        let stream = Stream::replay(draws.into_iter().map(|draw| draw as f32).collect());
        if one_step {
            assert_eq!(attack.step_size, Some(threat.epsilon));
            let fgsm = Fgsm {
                start,
                ..Fgsm::default()
            };
            let fgsm = fgsm.perturb(net, batch, &threat, &stream).unwrap();
            assert_near(
                "fgsm",
                &fgsm.images,
                &case.result("x_adv"),
                tolerance(dtype, 1e-6, 1e-7),
            );
        }
        attack.trace(net, batch, &threat, &stream, &mut |iterate| {
            iterates.push(iterate.images.clone());
            Ok(())
        })
    };
    let found = found.unwrap();

    let allowed = tolerance(dtype, 1e-6, 1e-7);
    let what = format!("{} {dtype:?}", case.path.display());
    assert_near(&format!("{what} start"), &iterates[0], case.raw("x_start"), allowed);
    check_iterates(case, &what, &iterates, &found, loss, allowed);
    for (step, (images, expected)) in iterates[1..].iter().zip(rows(&case.result("ce_per_step"))).enumerate() {
        let values = cross_entropy(&net.logits(images, Mode::Eval).unwrap(), &batch.labels).unwrap();
        assert_near(
            &format!("{what} ce {step}"),
            &values,
            &expected,
            tolerance(dtype, 2e-5, 1e-6),
        );
    }
    recorded.check_logits(case, &found.images, tolerance(dtype, 2e-5, 1e-6));
}

fn check_iterates(case: &Case, what: &str, iterates: &[Tensor], found: &Perturbed, loss: Loss, allowed: f64) {
    // A pixel whose gradient drowned in rounding may go either way, then and afterwards.
    let relative: Vec<Vec<f64>> = rows(&case.input("grad_rel", DType::F64)).iter().map(doubles).collect();
    let unsure = |pixel: usize, steps: usize| {
        relative[..steps].iter().enumerate().any(|(step, gradient)| {
            let floor = if loss == Loss::Kl && step == 0 { 1e-3 } else { 1e-5 };
            gradient[pixel] < floor && gradient[pixel] > 0.0
        })
    };
    let expected = rows(&case.result("iterates"));
    assert_eq!(iterates.len(), expected.len() + 1, "{what}");
    for (step, (images, expected)) in iterates[1..].iter().zip(&expected).enumerate() {
        // Iterates are recorded from the float32 run only.
        assert_near_where(&format!("{what} step {step}"), images, expected, 1e-6, |i| {
            unsure(i, step + 1)
        });
    }
    let steps = expected.len();
    assert_near_where(
        &format!("{what} result"),
        &found.images,
        &case.result("x_adv"),
        allowed,
        |i| unsure(i, steps),
    );

    let pixels = relative[0].len() / found.images.dim(0).unwrap();
    let stalled = |image: usize| {
        relative
            .iter()
            .any(|gradient| gradient[image * pixels..][..pixels].iter().all(|&value| value == 0.0))
    };
    let stalled = (0..found.images.dim(0).unwrap())
        .filter(|&image| stalled(image))
        .count();
    assert_eq!(
        found.zero_gradients, stalled as u64,
        "{what}: examples without gradient"
    );
}

/// The rows of a tensor along its first dimension.
pub(crate) fn rows(tensor: &Tensor) -> Vec<Tensor> {
    (0..tensor.dim(0).unwrap())
        .map(|row| tensor.get(row).unwrap())
        .collect()
}

fn check_l2_pgd(case: &Case, dtype: DType) {
    let Recorded { net, batch } = Recorded::read(case, dtype);
    let threat = Threat {
        norm: Norm::L2,
        epsilon: pixels(case.hyper("epsilon")),
    };
    let attack = Pgd {
        steps: Some(steps_of(case)),
        step_size: Some(pixels(case.hyper("step_size"))),
        ..Pgd::default()
    };
    let stream = Stream::replay(case.raw("start_uniform01").flatten_all().unwrap().to_vec1().unwrap());
    let mut iterates = Vec::new();
    let found = attack.trace(&net, &batch, &threat, &stream, &mut |iterate| {
        iterates.push(iterate.images.clone());
        Ok(())
    });
    let allowed = tolerance(dtype, 1e-5, 1e-6);
    let norms: Vec<Tensor> = iterates
        .iter()
        .map(|images| threat.distances(&batch.images, images).unwrap())
        .collect();
    // Recorded from the float32 run only.
    assert_near(
        "iterates",
        &Tensor::stack(&iterates, 0).unwrap(),
        &case.result("iterates"),
        1e-5,
    );
    assert_near(
        "delta_norm",
        &Tensor::stack(&norms, 0).unwrap(),
        &case.result("delta_norm"),
        allowed,
    );
    assert_near("x_adv", &found.unwrap().images, &case.result("x_adv"), allowed);
}

fn check_l2_trades(case: &Case, dtype: DType) {
    let recorded = Recorded::read(case, dtype);
    let Recorded { net, batch } = &recorded;
    let threat = Threat {
        norm: Norm::L2,
        epsilon: pixels(case.hyper("epsilon")),
    };
    let attack = TradesL2 {
        steps: steps_of(case),
        step_size: None,
        start: Start::Gaussian {
            sigma: Pixels::new(1, 1000),
        },
        batch_norm: BatchNorm::Eval,
    };
    let stream = Stream::replay(case.raw("start_noise").flatten_all().unwrap().to_vec1().unwrap());
    let mut iterates = Vec::new();
    let found = attack.trace(net, batch, &threat, &stream, &mut |images| {
        iterates.push(images.clone());
        Ok(())
    });
    let found = found.unwrap();
    let allowed = tolerance(dtype, 2e-4, 1e-6);
    let norms: Vec<Tensor> = iterates
        .iter()
        .map(|images| threat.distances(&batch.images, images).unwrap())
        .collect();
    // Recorded from the float32 run only.
    assert_near(
        "iterates",
        &Tensor::stack(&iterates, 0).unwrap(),
        &case.result("iterates"),
        2e-4,
    );
    assert_near(
        "delta_norm",
        &Tensor::stack(&norms, 0).unwrap(),
        &case.result("delta_norm"),
        allowed,
    );
    assert_near("x_adv", &found.images, &case.result("x_adv"), allowed);
    recorded.check_logits(case, &found.images, tolerance(dtype, 2e-3, 1e-5));
}

fn check_anpgd(case: &Case, dtype: DType) {
    let Recorded { net, batch } = Recorded::read(case, dtype);
    let whole = |name: &str| case.meta["hyper"][name].as_u64().unwrap();
    let attack = AnPgd {
        steps: whole("nb_iter"),
        reach: case.hyper("eps_iter_scale"),
        search_steps: whole("search_steps"),
        batch_norm: BatchNorm::Eval,
    };
    let start: Vec<f32> = case.raw("start_uniform").flatten_all().unwrap().to_vec1().unwrap();
    let (norm, draws) = match case.meta["hyper"]["norm"].as_str() {
        Some("Linf") => (Norm::Linf, start.into_iter().map(|draw| (draw + 1.0) / 2.0).collect()),
        Some("L2") => (Norm::L2, start),
        other => panic!("{}: norm {other:?}", case.path.display()),
    };
    let found = attack
        .search(
            &net,
            &batch,
            norm,
            &case.input("prev_eps", dtype),
            case.hyper("maxeps"),
            &Stream::replay(draws),
            &mut |images| net.logits(images, Mode::Eval),
        )
        .unwrap();
    let allowed = tolerance(dtype, 1e-5, 1e-6);
    let check = |name: &str, actual: &Tensor, allowed: f64| {
        assert_near(
            &format!("{} {name} {dtype:?}", case.path.display()),
            actual,
            &case.result(name),
            allowed,
        );
    };
    check("pgd_adv", &found.pgd_images, allowed);
    // Divided by a radius of a few thousandths, the images' rounding weighs as much more.
    check("unit_direction", &found.directions, tolerance(dtype, 1e-4, 1e-6));
    check(
        "search_margin",
        &Tensor::stack(&found.margins, 0).unwrap(),
        tolerance(dtype, 2e-5, 1e-6),
    );
    check("eps_path", &Tensor::stack(&found.radii_tried, 0).unwrap(), allowed);
    check("eps", &found.radii, allowed);
    check("x_adv", &found.images, allowed);
}

fn check_fosc_attack(case: &Case, dtype: DType) {
    let Recorded { net, batch } = Recorded::read(case, dtype);
    let epsilon = case.hyper("eps");
    let attack = FoscPgd {
        steps: steps_of(case),
        step_size: pixels(case.meta["step_size"].as_f64().unwrap()),
        start: Start::Uniform,
        origin: Origin::Start,
        threshold: case.hyper("criterion"),
        batch_norm: BatchNorm::Eval,
    };
    let noise = doubles(case.raw("start_noise"));
    let draws = noise
        .iter()
        .map(|noise| ((noise / epsilon + 1.0) / 2.0) as f32)
        .collect();
    let threat = Threat {
        norm: Norm::Linf,
        epsilon: pixels(epsilon),
    };
    let (mut values, mut frozen) = (Vec::new(), Vec::new());
    let mut observe = |value: &Tensor, moving: &Tensor| {
        values.push(value.clone());
        frozen.push(moving.eq(0u8)?.to_dtype(DType::F64)?);
        Ok(())
    };
    let found = attack
        .trace(&net, &batch, &threat, &Stream::replay(draws), Some(&mut observe))
        .unwrap();
    let what = |name: &str| format!("{} {name} {dtype:?}", case.path.display());
    let allowed = tolerance(dtype, 1e-5, 1e-6);
    assert_near(
        &what("fosc"),
        &Tensor::stack(&values, 1).unwrap(),
        &case.result("fosc"),
        tolerance(dtype, 2e-5, 1e-6),
    );
    assert_near(
        &what("frozen"),
        &Tensor::stack(&frozen, 1).unwrap(),
        case.raw("frozen_after_step"),
        0.0,
    );
    assert_near(&what("x_adv"), &found.images, &case.result("x_adv"), allowed);
}
