//! Losses of logits `[B, K]`, one value `[B]` per example, in nats unless stated otherwise.
//!
//! z are logits, p = softmax(z), y the label, M = max_{k≠y} z_k. All of them are finite, with finite
//! gradients, where a probability underflows to 0. Ties for a largest class go to the first one, except where a
//! function says otherwise.

use candle_core::{D, DType, Result, Tensor};
pub use kernels::{cross_entropy, log_softmax};

/// KL(p ‖ q) = Σ_k p_k (log p_k − log q_k), from the logits of both.
pub fn kl(logits: &Tensor, other: &Tensor) -> Result<Tensor> {
    let log_p = log_softmax(logits)?;
    (log_p.exp()? * (&log_p - log_softmax(other)?)?)?.sum(D::Minus1)
}

/// Σ_k p_k (log p_k − log(q_k + `floor`)), from the logits of both.
pub fn kl_with_floor(logits: &Tensor, other: &Tensor, floor: f64) -> Result<Tensor> {
    let log_p = log_softmax(logits)?;
    let log_q = (log_softmax(other)?.exp()? + floor)?.log()?;
    (log_p.exp()? * (&log_p - log_q)?)?.sum(D::Minus1)
}

/// BCE = −log p_y − log(`one` − p_j + `floor`) with j the most probable wrong class. MART's paper has
/// `one` = 1 and no floor; its code 1.0001 and 1e-12. Among equal classes j is the last one, as in that code.
pub fn boosted_cross_entropy(logits: &Tensor, labels: &Tensor, one: f64, floor: f64) -> Result<Tensor> {
    let rival = last_best_wrong(logits, labels)?;
    let boost = (probability_of_others(logits, &rival)? + (one - 1.0 + floor))?.log()?;
    cross_entropy(logits, labels)? - boost
}

/// 1 − p_i = Σ_{k≠i} p_k, summed so that no digits are lost when p_i is nearly 1.
pub fn probability_of_others(logits: &Tensor, index: &Tensor) -> Result<Tensor> {
    let probabilities = log_softmax(logits)?.exp()?;
    let others = one_hot(index, logits.dim(D::Minus1)?)?;
    others
        .where_cond(&probabilities.zeros_like()?, &probabilities)?
        .sum(D::Minus1)
}

/// Σ_k (a_k − b_k)².
pub fn squared_distance(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (a - b)?.sqr()?.sum(D::Minus1)
}

/// LM = M − z_y, in logits: positive exactly where the prediction is wrong.
pub fn margin(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    at(logits, &best_wrong(logits, labels)?)? - at(logits, labels)?
}

/// SLM = log Σ_{k≠y} exp z_k − z_y: negative exactly where p_y > ½.
pub fn soft_margin(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let wrong = without(logits, labels)?;
    let largest = wrong.max_keepdim(D::Minus1)?.detach();
    let sum = wrong.broadcast_sub(&largest)?.exp()?.sum(D::Minus1)?;
    (sum.log()? + largest.squeeze(D::Minus1)?)? - at(logits, labels)?
}

/// DLR = −(z_y − M) / (z₍₁₎ − z₍₃₎ + 1e-12), logits in descending order. Needs K ≥ 3.
pub fn dlr(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let order = ranking(logits, 3)?;
    let spread = (at(logits, &order[0])? - at(logits, &order[2])?)?;
    margin(logits, labels)? / (spread + 1e-12)?
}

/// Targeted DLR = −(z_y − z_t) / (z₍₁₎ − ½(z₍₃₎ + z₍₄₎) + 1e-12). Needs K ≥ 4.
pub fn dlr_targeted(logits: &Tensor, labels: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let order = ranking(logits, 4)?;
    let third_and_fourth = ((at(logits, &order[2])? + at(logits, &order[3])?)? * 0.5)?;
    let spread = (at(logits, &order[0])? - third_and_fourth)?;
    (at(logits, targets)? - at(logits, labels)?)? / (spread + 1e-12)?
}

/// The most probable wrong class `[B]`, u32.
pub fn best_wrong(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    without(&logits.detach(), labels)?.argmax(D::Minus1)
}

/// As [`best_wrong`], but the last of equal classes: MART's code sorts the probabilities in ascending order and takes
/// the last class, or the one before if the last is the label. PyTorch does not promise that `argsort` keeps the order
/// of equal values; on the CPU it does for up to 16 classes, and with more its choice is not defined.
pub fn last_best_wrong(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let order = ranking(&without(&logits.detach(), labels)?, 1)?;
    order
        .into_iter()
        .next()
        .ok_or_else(|| candle_core::Error::msg("a ranking of one place is empty"))
}

/// The predicted class `[B]`, u32.
pub fn prediction(logits: &Tensor) -> Result<Tensor> {
    logits.detach().argmax(D::Minus1)
}

/// The `places` most probable classes in descending order, each `[B]`, u32. Here ties go to the last
/// class first, as in the ascending sort of AutoAttack's code.
pub fn ranking(logits: &Tensor, places: usize) -> Result<Vec<Tensor>> {
    let last = logits.dim(D::Minus1)? as f64 - 1.0;
    let mut rest = logits.detach();
    let mut order = Vec::with_capacity(places);
    for _ in 0..places {
        let from_the_end = rest.flip(&[1])?.argmax(D::Minus1)?.to_dtype(DType::F32)?;
        let best = from_the_end.affine(-1.0, last)?.to_dtype(DType::U32)?;
        rest = without(&rest, &best)?;
        order.push(best);
    }
    Ok(order)
}

/// `values[b, index[b]]`: `[B, K]` and `[B]` to `[B]`.
pub fn at(values: &Tensor, index: &Tensor) -> Result<Tensor> {
    values.contiguous()?.gather(&index.unsqueeze(1)?, 1)?.squeeze(1)
}

/// 1 at each index, else 0: `[B]` to `[B, classes]`, u8.
pub fn one_hot(index: &Tensor, classes: usize) -> Result<Tensor> {
    let all = Tensor::arange(0u32, classes as u32, index.device())?.unsqueeze(0)?;
    let index = index.to_dtype(DType::U32)?.unsqueeze(1)?;
    index.broadcast_eq(&all)
}

/// The logits with the class at each index out of reach.
fn without(logits: &Tensor, index: &Tensor) -> Result<Tensor> {
    let never = (logits.zeros_like()? + f64::NEG_INFINITY)?;
    one_hot(index, logits.dim(D::Minus1)?)?.where_cond(&never, logits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Loss;
    use candle_core::Device;
    use testing::{assert_gradient, assert_near, tensor};

    /// Right, wrong, and nearly tied; labels 0, 1, 2.
    fn example() -> (Tensor, Tensor, Tensor) {
        let logits = [
            [3.0, -1.0, 0.5, 0.1, -2.0],
            [2.0, 0.3, -0.4, 1.1, 0.0],
            [0.2, 0.1, 0.3, -0.7, 0.25],
        ];
        let other = [
            [0.4, 1.2, -0.3, 0.8, 2.2],
            [-1.0, 0.6, 0.2, 0.1, 0.9],
            [1.3, -0.2, 0.7, 0.4, -1.1],
        ];
        let labels = Tensor::new(&[0u32, 1, 2], &Device::Cpu).unwrap();
        (
            tensor(logits.as_flattened(), &[3, 5]),
            tensor(other.as_flattened(), &[3, 5]),
            labels,
        )
    }

    #[test]
    fn among_equal_classes_marts_rival_is_the_last() {
        // All equal; the label ties with a later class; the label is the last of the equal ones; no tie.
        let logits = [
            [0.0, 0.0, 0.0, 0.0],
            [1.0, 2.0, 2.0, 0.0],
            [1.0, 2.0, 2.0, 2.0],
            [0.3, 0.1, 0.9, 0.2],
        ];
        let logits = tensor(logits.as_flattened(), &[4, 4]);
        let classes = |labels: [u32; 4], expected: [u32; 4]| {
            let labels = Tensor::new(&labels, &Device::Cpu).unwrap();
            let rivals = last_best_wrong(&logits, &labels).unwrap().to_vec1::<u32>().unwrap();
            assert_eq!(rivals, expected, "{labels}");
        };
        classes([0, 1, 3, 2], [3, 2, 2, 0]);
        classes([3, 2, 1, 0], [2, 1, 3, 2]);
        // The gradient of the boost goes to that class and to the label.
        let equal = candle_core::Var::from_tensor(&tensor(&[0.0; 4], &[1, 4])).unwrap();
        let label = Tensor::new(&[3u32], &Device::Cpu).unwrap();
        let loss = boosted_cross_entropy(&equal, &label, 1.0001, 1e-12).unwrap();
        let gradients = loss.sum_all().unwrap().backward().unwrap();
        let gradient = reference::doubles(gradients.get(&equal).unwrap());
        assert!(gradient[2] > gradient[0] && gradient[0] == gradient[1], "{gradient:?}");
    }

    #[test]
    fn values_worked_by_hand() {
        let logits = tensor(&[1.0, 3.0, 0.0, -1.0], &[1, 4]);
        let label = Tensor::new(&[0u32], &Device::Cpu).unwrap();
        let check = |what: &str, loss: Loss, expected: f64| {
            let value = loss.per_example(&logits, &label, Some(&logits)).unwrap();
            assert_near(what, &value, &tensor(&[expected], &[1]), 1e-12);
        };
        let sum = 1f64.exp() + 3f64.exp() + 1.0 + (-1f64).exp();
        check("cross entropy", Loss::CrossEntropy, sum.ln() - 1.0);
        check("kl to itself", Loss::Kl, 0.0);
        check("margin", Loss::Margin, 2.0);
        check(
            "soft margin",
            Loss::SoftMargin,
            (3f64.exp() + 1.0 + (-1f64).exp()).ln() - 1.0,
        );
        check("cw, wrong by more than kappa", Loss::Cw { kappa: 1.0 }, 0.0);
        check("cw, wrong by less than kappa", Loss::Cw { kappa: 5.0 }, -3.0);
        check("advertorch's clamp", Loss::CwAdvertorch { kappa: 1.0 }, 3.0);
        check("dlr", Loss::Dlr, 2.0 / 3.0);
        check("targeted dlr, target 1", Loss::DlrTargeted { rank: 1 }, 2.0 / 3.5);
        check("targeted dlr, target 2", Loss::DlrTargeted { rank: 2 }, -1.0 / 3.5);
        let negative = tensor(&[1.0, -3.0], &[1, 2]);
        let masked = Loss::CwZeroMask { kappa: 50.0 }
            .per_example(&negative, &label, None)
            .unwrap();
        assert_near("zero mask: 0 takes part", &masked, &tensor(&[-51.0], &[1]), 1e-12);
    }

    #[test]
    fn gradients_of_attack_losses() {
        let (logits, clean, labels) = example();
        for loss in [
            Loss::CrossEntropy,
            Loss::Kl,
            Loss::Margin,
            Loss::SoftMargin,
            Loss::Cw { kappa: 0.0 },
            Loss::Cw { kappa: 50.0 },
            Loss::CwZeroMask { kappa: 0.0 },
            Loss::CwZeroMask { kappa: 50.0 },
            Loss::CwAdvertorch { kappa: 1.0 },
            Loss::CwBatchSum,
            Loss::Dlr,
            Loss::DlrTargeted { rank: 1 },
            Loss::DlrTargeted { rank: 3 },
        ] {
            assert_gradient(&loss.to_string(), &logits, |logits| {
                loss.per_example(logits, &labels, Some(&clean))
            });
        }
    }

    #[test]
    fn gradients_of_training_losses() {
        let (a, b, labels) = example();
        assert_gradient("kl, first", &a, |a| kl(a, &b));
        assert_gradient("kl, second", &b, |b| kl(&a, b));
        assert_gradient("kl with floor, first", &a, |a| kl_with_floor(a, &b, 1e-2));
        assert_gradient("kl with floor, second", &b, |b| kl_with_floor(&a, b, 1e-2));
        assert_gradient("boosted", &a, |a| boosted_cross_entropy(a, &labels, 1.0001, 1e-12));
        assert_gradient("others", &a, |a| probability_of_others(a, &labels));
        assert_gradient("squares", &a, |a| squared_distance(a, &b));
    }

    #[test]
    fn saturated_logits_stay_finite() {
        let labels = Tensor::new(&[0u32, 1], &Device::Cpu).unwrap();
        let far = tensor(&[500.0, -500.0, 0.0, 500.0, -500.0, 0.0], &[2, 3])
            .to_dtype(DType::F32)
            .unwrap();
        let near = tensor(&[0.1, 0.2, 0.3, 0.3, 0.2, 0.1], &[2, 3])
            .to_dtype(DType::F32)
            .unwrap();
        for (first, second) in [(&far, &near), (&near, &far), (&far, &far)] {
            let [a, b] = [first, second].map(|logits| candle_core::Var::from_tensor(logits).unwrap());
            let losses = [
                kl(&a, &b).unwrap(),
                kl_with_floor(&a, &b, 1e-12).unwrap(),
                boosted_cross_entropy(&a, &labels, 1.0001, 1e-12).unwrap(),
                soft_margin(&b, &labels).unwrap(),
            ];
            for loss in losses {
                let gradients = loss.sum_all().unwrap().backward().unwrap();
                let mut values = reference::doubles(&loss);
                for variable in [&a, &b] {
                    values.extend(gradients.get(variable).map(reference::doubles).unwrap_or_default());
                }
                assert!(values.iter().all(|value| value.is_finite()), "{values:?}");
            }
        }
    }
}
