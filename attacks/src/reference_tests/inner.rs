//! The attacks inside MMA training and Dynamic AT against the authors' code.

use candle_core::{DType, Tensor};
use models::{Classifier, Mode};
use random::Stream;
use reference::{Case, NotBuilt, doubles};
use testing::{assert_near, decimal, tolerance};

use super::recorded::{Recorded, count};
use crate::{AnPgd, BatchNorm, FoscPgd, Norm, Origin, Start, Threat};

pub(super) fn check_an_pgd(case: &Case, dtype: DType) -> Result<(), NotBuilt> {
    let Recorded { net, batch } = Recorded::read(case, dtype)?;
    let attack = AnPgd {
        steps: count(case, "nb_iter"),
        reach: case.hyper("eps_iter_scale"),
        search_steps: count(case, "search_steps"),
        batch_norm: BatchNorm::Eval,
    };
    let start: Vec<f32> = case.raw("start_uniform").flatten_all().unwrap().to_vec1().unwrap();
    let (norm, draws) = match case.meta["hyper"]["norm"].as_str() {
        Some("Linf") => (Norm::Linf, start.into_iter().map(|draw| (draw + 1.0) / 2.0).collect()),
        Some("L2") => (Norm::L2, start),
        other => return Err(NotBuilt(format!("the norm {other:?}"))),
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
    // Dividing by a radius of a few thousandths amplifies the rounding of the images accordingly.
    check("unit_direction", &found.directions, tolerance(dtype, 1e-4, 1e-6));
    check(
        "search_margin",
        &Tensor::stack(&found.margins, 0).unwrap(),
        tolerance(dtype, 2e-5, 1e-6),
    );
    check("eps_path", &Tensor::stack(&found.radii_tried, 0).unwrap(), allowed);
    check("eps", &found.radii, allowed);
    check("x_adv", &found.images, allowed);
    Ok(())
}

pub(super) fn check_fosc(case: &Case, dtype: DType) -> Result<(), NotBuilt> {
    let Recorded { net, batch } = Recorded::read(case, dtype)?;
    let epsilon = case.hyper("eps");
    let attack = FoscPgd {
        steps: count(case, "steps"),
        step_size: decimal(case.meta["step_size"].as_f64().unwrap()),
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
        epsilon: decimal(epsilon),
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
    Ok(())
}
