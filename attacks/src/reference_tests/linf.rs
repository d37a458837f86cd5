//! FGSM, PGD and MI-FGSM under L∞ against the authors' code.

use candle_core::{DType, Tensor};
use models::{Classifier, Mode};
use random::Stream;
use reference::{Case, NotBuilt, doubles};
use testing::{Net, assert_near, assert_near_where, decimal, tolerance};

use super::recorded::{Recorded, count, rows};
use crate::losses::cross_entropy;
use crate::{Attack, Batch, Fgsm, Loss, MiFgsm, Norm, Perturbed, Pgd, Pixels, Start, Threat};

pub(super) fn check(case: &Case, dtype: DType) -> Result<(), NotBuilt> {
    let recorded = Recorded::read(case, dtype)?;
    let Recorded { net, batch } = &recorded;
    let threat = Threat {
        norm: Norm::Linf,
        epsilon: decimal(case.hyper("epsilon")),
    };
    let loss = loss_of(case);
    let (found, iterates) = if case.meta["hyper"].get("mu").is_some() {
        momentum(case, net, batch, &threat)
    } else {
        pgd(case, net, batch, &threat, loss, dtype)
    };

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
    Ok(())
}

/// The loss that a recorded attack ascends.
fn loss_of(case: &Case) -> Loss {
    let hyper = &case.meta["hyper"];
    if hyper.get("kappa").is_some() {
        Loss::Cw {
            kappa: case.hyper("kappa"),
        }
    } else if hyper["loss"].as_str().is_some_and(|loss| loss.starts_with("KL")) {
        Loss::Kl
    } else if case.meta["source"].as_str().unwrap().contains("batch sum") {
        Loss::CwBatchSum
    } else {
        Loss::CrossEntropy
    }
}

/// MI-FGSM: its result, and the images from the start on.
fn momentum(case: &Case, net: &Net, batch: &Batch, threat: &Threat) -> (Perturbed, Vec<Tensor>) {
    let attack = MiFgsm {
        steps: count(case, "steps"),
        step_size: Some(decimal(case.hyper("step_size"))),
        decay: case.hyper("mu"),
        ..MiFgsm::default()
    };
    let mut iterates = vec![batch.images.clone()];
    let found = attack.trace(net, batch, threat, &Stream::new(0), &mut |_, images| {
        iterates.push(images.clone());
        Ok(())
    });
    (found.unwrap(), iterates)
}

/// PGD from the recorded start: its result, and the images from the start on. One step as long as the radius is FGSM too.
fn pgd(case: &Case, net: &Net, batch: &Batch, threat: &Threat, loss: Loss, dtype: DType) -> (Perturbed, Vec<Tensor>) {
    let hyper = &case.meta["hyper"];
    let start_text = hyper["start"].as_str().unwrap_or("x");
    let noise = if case.has("start_noise") {
        doubles(case.raw("start_noise"))
    } else {
        Vec::new()
    };
    let epsilon = threat.epsilon.value();
    let (start, draws) = match start_text {
        "x" => (Start::None, noise),
        text if text.contains("0.001*start_noise") => (
            Start::Gaussian {
                sigma: Pixels::new(1, 1000),
            },
            noise,
        ),
        // The recorded noise is what was added to the image; the draw that gave it is in [0, 1).
        _ => (
            Start::Uniform,
            noise.iter().map(|noise| (noise / epsilon + 1.0) / 2.0).collect(),
        ),
    };
    let attack = Pgd {
        steps: Some(hyper.get("steps").map_or(1, |_| count(case, "steps"))),
        step_size: Some(match hyper.get("step_size") {
            None => threat.epsilon,
            Some(_) => decimal(case.hyper("step_size")),
        }),
        start,
        clip_start: start_text.contains("clip("),
        loss,
        ..Pgd::default()
    };
    let stream = Stream::replay(draws.into_iter().map(|draw| draw as f32).collect());
    if attack.steps == Some(1) && attack.step_size == Some(threat.epsilon) {
        let fgsm = Fgsm {
            start,
            clip_start: attack.clip_start,
            loss,
            ..Fgsm::default()
        };
        let found = fgsm.perturb(net, batch, threat, &stream).unwrap();
        let allowed = tolerance(dtype, 1e-6, 1e-7);
        assert_near("fgsm", &found.images, &case.result("x_adv"), allowed);
    }
    let mut iterates = Vec::new();
    let found = attack.trace(net, batch, threat, &stream, &mut |iterate| {
        iterates.push(iterate.images.clone());
        Ok(())
    });
    (found.unwrap(), iterates)
}

fn check_iterates(case: &Case, what: &str, iterates: &[Tensor], found: &Perturbed, loss: Loss, allowed: f64) {
    // A pixel whose gradient is below rounding error may go either way, from then on.
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
