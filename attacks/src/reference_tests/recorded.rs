//! What the recorded attacks have in common.

use candle_core::{DType, Tensor};
use models::{Classifier, Mode};
use reference::{Case, NotBuilt, doubles};
use testing::{Net, assert_near, decimal};

use crate::{Batch, Norm, Threat};

/// The network and the batch of a recorded attack.
pub(super) struct Recorded {
    pub(super) net: Net,
    pub(super) batch: Batch,
}

impl Recorded {
    pub(super) fn read(case: &Case, dtype: DType) -> Result<Self, NotBuilt> {
        Ok(Self {
            net: Net::read(&case.network(), "", dtype)?,
            batch: batch(case, "", dtype),
        })
    }

    pub(super) fn check_logits(&self, case: &Case, images: &Tensor, tolerance: f64) {
        let logits = self.net.logits(images, Mode::Eval).unwrap();
        assert_near("logits_adv", &logits, &case.result("logits_adv"), tolerance);
    }
}

/// The batch whose tensors' names start with `prefix`; its ids count from 0.
pub(super) fn batch(case: &Case, prefix: &str, dtype: DType) -> Batch {
    let images = case.input(&format!("{prefix}x"), dtype);
    Batch {
        labels: case.indices(&format!("{prefix}labels")),
        ids: (0..images.dim(0).unwrap() as u64).collect(),
        images,
    }
}

/// The threat model of an attack of AutoAttack: L∞ unless the case names another norm.
pub(super) fn threat(case: &Case) -> Result<Threat, NotBuilt> {
    let norm = match case.meta["hyper"]["norm"].as_str() {
        None | Some("Linf") => Norm::Linf,
        Some("L2") => Norm::L2,
        Some(other) => return Err(NotBuilt(format!("the norm {other}"))),
    };
    Ok(Threat {
        norm,
        epsilon: decimal(case.hyper("eps")),
    })
}

/// A hyper-parameter that is a whole number.
pub(super) fn count(case: &Case, name: &str) -> u64 {
    case.hyper(name) as u64
}

pub(super) fn integers(values: &Tensor) -> Vec<i64> {
    doubles(values).into_iter().map(|value| value as i64).collect()
}

/// The rows of a tensor along its first dimension.
pub(super) fn rows(tensor: &Tensor) -> Vec<Tensor> {
    (0..tensor.dim(0).unwrap())
        .map(|row| tensor.get(row).unwrap())
        .collect()
}
