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
    let trace = Trace {
        iterates,
        images: found.unwrap().images,
    };
    trace.check(case, &threat, &batch.images, [1e-5, tolerance(dtype, 1e-5, 1e-6)]);
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
    let trace = Trace {
        iterates,
        images: found.unwrap().images,
    };
    trace.check(case, &threat, &batch.images, [2e-4, tolerance(dtype, 2e-4, 1e-6)]);
    recorded.check_logits(case, &trace.images, tolerance(dtype, 2e-3, 1e-5));
    Ok(())
}

/// The images after every step of an attack, and those it ends with.
struct Trace {
    iterates: Vec<Tensor>,
    images: Tensor,
}

impl Trace {
    /// Compares with the authors' run. The steps were recorded in float32 alone, so they have a tolerance of their own.
    fn check(&self, case: &Case, threat: &Threat, clean: &Tensor, [of_steps, allowed]: [f64; 2]) {
        let norms = self.iterates.iter().map(|images| threat.distances(clean, images));
        let norms: Vec<Tensor> = norms.map(Result::unwrap).collect();
        let stack = |tensors: &[Tensor]| Tensor::stack(tensors, 0).unwrap();
        assert_near("iterates", &stack(&self.iterates), &case.result("iterates"), of_steps);
        assert_near("delta_norm", &stack(&norms), &case.result("delta_norm"), allowed);
        assert_near("x_adv", &self.images, &case.result("x_adv"), allowed);
    }
}
