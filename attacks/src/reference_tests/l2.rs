//! L2 PGD and the L2 attack inside TRADES against the authors' code.

use candle_core::{DType, Tensor};
use random::Stream;
use reference::{Case, NotBuilt};
use testing::{assert_near, decimal, tolerance};

use super::recorded::{Recorded, count};
use crate::{BatchNorm, Norm, Pgd, Pixels, Start, Threat, TradesL2};

pub(super) fn check_pgd(case: &Case, dtype: DType) -> Result<(), NotBuilt> {
    let Recorded { net, batch } = Recorded::read(case, dtype)?;
    let threat = Threat {
        norm: Norm::L2,
        epsilon: decimal(case.hyper("epsilon")),
    };
    let attack = Pgd {
        steps: Some(count(case, "steps")),
        step_size: Some(decimal(case.hyper("step_size"))),
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
    Ok(())
}

pub(super) fn check_trades(case: &Case, dtype: DType) -> Result<(), NotBuilt> {
    let recorded = Recorded::read(case, dtype)?;
    let Recorded { net, batch } = &recorded;
    let threat = Threat {
        norm: Norm::L2,
        epsilon: decimal(case.hyper("epsilon")),
    };
    let attack = TradesL2 {
        steps: count(case, "steps"),
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
    Ok(())
}
