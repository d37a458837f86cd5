//! Every training loss against the authors' code.

use std::collections::BTreeSet;

use attacks::losses::{best_wrong, cross_entropy, last_best_wrong, prediction, soft_margin};
use candle_core::{DType, Tensor, Var};
use reference::{Case, NotBuilt, doubles};
use testing::{assert_near, assert_near_where, decimal, tolerance};

use crate::{Alp, AlpForm, Boost, Clp, ClpForm, Group, Mart, Mma, Trades, Treat, Treatment, mma};

/// What a training loss is a function of.
struct Pair {
    clean: Var,
    robust: Var,
    labels: Tensor,
    subset: Tensor,
}

/// A loss by its name in the reference vectors: one value per example, or a scalar. `None`: the name is unknown.
fn training_loss(case: &Case, name: &str, pair: &Pair) -> Option<candle_core::Result<Tensor>> {
    let Pair {
        clean,
        robust,
        labels,
        subset,
    } = pair;
    let everyone = subset.ones_like().unwrap();
    let mart = Mart {
        lambda: Some(case.hyper("mart_beta")),
        ..Mart::default()
    };
    let alp = |form, lambda: &str| Alp {
        form,
        lambda: Some(case.hyper(lambda)),
        ..Alp::default()
    };
    let clp = |form, lambda: &str| Clp {
        form,
        lambda: Some(case.hyper(lambda)),
        ..Clp::default()
    };
    Some(match name {
        "at" => cross_entropy(robust, labels),
        "alp_prob" => alp(AlpForm::Probabilities, "alp_prob_lambda").loss(clean, robust, labels),
        "alp_logit" => alp(AlpForm::Logits, "alp_logit_weight").loss(clean, robust, labels),
        "clp_prob" => clp(ClpForm::Probabilities, "clp_prob_lambda").loss(clean, robust, labels),
        "clp_logit" => clp(ClpForm::Logits, "clp_logit_weight").loss(clean, robust, labels),
        "clp_pair" => cross_entropy(clean, labels)
            .and_then(|losses| losses.mean_all())
            .and_then(|loss| clp(ClpForm::Pair, "clp_pair_weight").pair_loss(clean, loss)),
        "trades" | "trades_author" => {
            let trades = Trades {
                beta: Some(case.hyper("trades_beta")),
                ..Trades::default()
            };
            trades.loss(clean, robust, clean, labels)
        }
        "mart" | "mart_author" => mart.loss(clean, robust, labels, &everyone),
        "mart_no_weight" => Mart {
            weighted: false,
            ..mart
        }
        .loss(clean, robust, labels, &everyone),
        "mart_bce_only" => Mart {
            lambda: Some(0.0),
            ..mart
        }
        .loss(clean, robust, labels, &everyone),
        "mart_ce" => Mart {
            boost: Boost::None,
            ..mart
        }
        .loss(clean, robust, labels, &everyone),
        "mart_bce_nat" => Mart {
            boost: Boost::Natural,
            ..mart
        }
        .loss(clean, robust, labels, &everyone),
        "mart_subset" => mart.loss(clean, robust, labels, subset),
        // Figure 1c of the MART paper.
        "ce_kl_subset" => Treat {
            examples: Group::Misclassified,
            how: Treatment::Kl,
            lambda: Some(case.hyper("ce_kl_lambda")),
        }
        .loss(clean, robust, labels, subset),
        // A loss of the MART paper that no defense here trains with, out of the same parts.
        "mma_table1" => mma_table1(clean, robust, labels),
        _ => return None,
    })
}

/// Cross entropy on the perturbed image where the clean one is classified correctly, else on the clean one.
fn mma_table1(clean: &Tensor, robust: &Tensor, labels: &Tensor) -> candle_core::Result<Tensor> {
    let correct = prediction(clean)?.eq(labels)?;
    correct.where_cond(&cross_entropy(robust, labels)?, &cross_entropy(clean, labels)?)
}

/// The rows in which several classes tie for the best wrong one.
fn tied_rows(logits: &Tensor, labels: &Tensor) -> Vec<bool> {
    let first = best_wrong(logits, labels).unwrap().to_vec1::<u32>().unwrap();
    let last = last_best_wrong(logits, labels).unwrap().to_vec1::<u32>().unwrap();
    first.iter().zip(&last).map(|(first, last)| first != last).collect()
}

pub(super) fn check_pair(case: &Case, dtype: DType) -> Result<(), NotBuilt> {
    let variable = |name: &str| Var::from_tensor(&case.input(name, dtype)).unwrap();
    let pair = Pair {
        clean: variable("nat_logits"),
        robust: variable("adv_logits"),
        labels: case.indices("labels"),
        subset: case.input("subset_mask", dtype),
    };
    let (_, classes) = pair.clean.dims2().unwrap();
    let extreme = !case.meta["note"].as_str().unwrap_or("").is_empty();
    let value_tolerance = tolerance(dtype, if extreme { 1e-3 } else { 2e-5 }, 1e-9);
    let gradient_tolerance = tolerance(dtype, if extreme { 1e-4 } else { 2e-5 }, 1e-9);
    let tied = case
        .has("tie_rows")
        .then(|| case.indices("tie_rows").to_vec1::<u32>().unwrap());
    let mut seen = BTreeSet::new();
    for name in case.tensors().keys() {
        let Some(name) = name.strip_suffix(".total.f32").filter(|name| !name.starts_with("atk_")) else {
            continue;
        };
        let what = format!("{} {name} {dtype:?}", case.path.display());
        let values = training_loss(case, name, &pair).ok_or_else(|| NotBuilt(format!("the loss {name}")))?;
        let values = values.unwrap();
        let total = values.mean_all().unwrap();
        if name.ends_with("_author") {
            let tolerance = if extreme { 1e-3 } else { 2e-5 };
            assert_near(&what, &total, &case.result(&format!("{name}.total")), tolerance);
            // The authors' own choice among tied classes, which their sort defines for few of them. Where nothing ties,
            // float64 is the reference, since their float32 gradient is NaN where a probability underflows.
            let gradients = total.backward().unwrap();
            for (side, variable) in [("grad_nat", &pair.clean), ("grad_adv", &pair.robust)] {
                let expected = format!("{name}.{side}");
                if case.has(&format!("{expected}.f32")) && tied.is_some() && classes <= 16 {
                    let gradient = gradients.get(variable).expect("a gradient");
                    assert_near(
                        &format!("{what} {side}"),
                        gradient,
                        &case.result(&expected),
                        gradient_tolerance.max(tolerance),
                    );
                }
            }
            continue;
        }
        seen.insert(name);
        assert_near(&what, &total, &case.result(&format!("{name}.total")), value_tolerance);
        if case.has(&format!("{name}.per_example.f64")) {
            assert_near(
                &what,
                &values,
                &case.result(&format!("{name}.per_example")),
                value_tolerance,
            );
        }
        let gradients = total.backward().unwrap();
        let boosted = name.starts_with("mart") && name != "mart_ce";
        let chosen = tied_rows(
            if name == "mart_bce_nat" {
                &pair.clean
            } else {
                &pair.robust
            },
            &pair.labels,
        );
        for (side, variable) in [("grad_nat", &pair.clean), ("grad_adv", &pair.robust)] {
            if !case.has(&format!("{name}.{side}.f64")) {
                continue;
            }
            let gradient = gradients
                .get(variable)
                .cloned()
                .unwrap_or(variable.zeros_like().unwrap());
            // The vectors take the first of classes that tie for the best wrong one, the authors' code and ours the last.
            // Which it is on perturbed images is compared above.
            assert_near_where(
                &format!("{what} {side}"),
                &gradient,
                &case.result(&format!("{name}.{side}")),
                gradient_tolerance,
                |i| boosted && chosen[i / classes],
            );
        }
    }
    let recorded = case.tensors().keys().filter_map(|name| name.split_once(".grad_"));
    let recorded = recorded
        .map(|(name, _)| name)
        .filter(|name| !name.starts_with("atk_") && !name.ends_with("_author"));
    assert_eq!(seen, recorded.collect(), "{}: losses", case.path.display());
    Ok(())
}

pub(super) fn check_mma(case: &Case, dtype: DType) {
    let variable = |name: &str| Var::from_tensor(&case.input(name, dtype)).unwrap();
    let (clean, second) = (variable("nat_logits"), variable("second_logits"));
    let labels = case.indices("labels");
    let margins = soft_margin(&clean, &labels).unwrap();
    let correct = mma::is_correct(&clean, &labels).unwrap();
    let flags = |name: &str| {
        doubles(case.raw(name))
            .into_iter()
            .map(|flag| flag == 1.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(correct, flags("correct_mask"));
    let mma = Mma {
        d_max: Some(decimal(case.hyper("hinge_maxeps"))),
        clean_weight: case.hyper("clean_loss_coeff"),
        ..Mma::default()
    };
    let radii = doubles(case.raw("eps"));
    let loss = mma
        .loss(&clean, &second, &labels, &correct, &radii, Tensor::mean_all)
        .unwrap();
    let allowed = tolerance(dtype, 2e-5, 1e-9);
    let check = |name: &str, actual: &Tensor| {
        assert_near(
            &format!("{} {name} {dtype:?}", case.path.display()),
            actual,
            &case.result(name),
            allowed,
        );
    };
    check("slm_nat", &margins);
    check("mma.total", &loss.total);
    check("mma.mma_part", &loss.margin);
    check("mma.clean_part", &loss.clean);
    let gradients = loss.total.backward().unwrap();
    let gradient = |variable: &Var| {
        gradients
            .get(variable)
            .cloned()
            .unwrap_or(variable.zeros_like().unwrap())
    };
    check("mma.grad_nat", &gradient(&clean));
    check("mma.grad_second", &gradient(&second));
    // Of one example alone the loss is that example's share. The record notes the hinge of correct ones
    // only: the wrong ones are always kept.
    let kept = flags("kept_mask");
    for row in 0..correct.len() {
        let row_of = |tensor: &Tensor| tensor.narrow(0, row, 1).unwrap();
        let (clean, second, labels) = (row_of(&clean), row_of(&second), row_of(&labels));
        let alone = mma
            .loss(
                &clean,
                &second,
                &labels,
                &correct[row..=row],
                &radii[row..=row],
                Tensor::mean_all,
            )
            .unwrap();
        let what = format!("{} row {row}", case.path.display());
        let expected = case.result("mma.per_example").get(row).unwrap();
        assert_near(&what, &alone.total, &expected, allowed);
        assert_eq!(doubles(&alone.margin)[0] > 0.0, kept[row] || !correct[row], "{what}");
    }
}
