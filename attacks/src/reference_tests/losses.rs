//! Every attack loss against the authors' code.

use std::collections::BTreeSet;

use candle_core::{DType, Var};
use reference::{Case, NotBuilt};
use testing::{assert_near, assert_near_where, tolerance};

use crate::{Loss, Norm, fosc, losses};

pub(super) fn check_pair(case: &Case, dtype: DType) -> Result<(), NotBuilt> {
    let labels = case.indices("labels");
    let (clean, adversarial) = (case.input("nat_logits", dtype), case.input("adv_logits", dtype));
    let extreme = !case.meta["note"].as_str().unwrap_or("").is_empty();
    let value_tolerance = tolerance(dtype, if extreme { 1e-3 } else { 2e-5 }, 1e-9);
    let gradient_tolerance = tolerance(dtype, if extreme { 1e-4 } else { 2e-5 }, 1e-9);
    let tied = case
        .has("tie_rows")
        .then(|| case.indices("tie_rows").to_vec1::<u32>().unwrap());
    let mut seen = BTreeSet::new();
    for name in case
        .tensors()
        .keys()
        .filter_map(|name| name.strip_suffix(".grad_adv.f64"))
    {
        let Some(loss) = name.strip_prefix("atk_") else {
            continue;
        };
        let what = format!("{} {name} {dtype:?}", case.path.display());
        let variable = Var::from_tensor(&adversarial).unwrap();
        let values = match loss {
            "dlr_targeted" => losses::dlr_targeted(&variable, &labels, &case.indices("targets")),
            _ => loss_called(loss)?.per_example(&variable, &labels, Some(&clean)),
        };
        let values = values.unwrap();
        let total = values.sum_all().unwrap();
        if case.has(&format!("{name}.per_example.f64")) {
            assert_near(
                &what,
                &values,
                &case.result(&format!("{name}.per_example")),
                value_tolerance,
            );
        } else {
            assert_near(&what, &total, &case.result(&format!("{name}.total")), value_tolerance);
        }
        let gradient = total.backward().unwrap().remove(&variable).unwrap();
        // Where classes tie for the best wrong one, only the choice among them is open.
        let depends_on_ties = !matches!(loss, "ce" | "kl" | "slm");
        let classes = gradient.dim(1).unwrap();
        assert_near_where(
            &format!("{what} gradient"),
            &gradient,
            &case.result(&format!("{name}.grad_adv")),
            gradient_tolerance,
            |i| depends_on_ties && tied.as_ref().is_some_and(|tied| tied[i / classes] == 1),
        );
        seen.insert(loss);
    }
    let recorded = case.tensors().keys().filter_map(|name| name.strip_prefix("atk_"));
    let recorded: BTreeSet<_> = recorded.filter_map(|name| name.split('.').next()).collect();
    assert_eq!(seen, recorded, "{}: losses", case.path.display());
    Ok(())
}

/// A loss by its name in the reference vectors.
fn loss_called(name: &str) -> Result<Loss, NotBuilt> {
    let kappa = name.rsplit_once("_k").and_then(|(_, kappa)| kappa.parse().ok());
    Ok(match (name, kappa) {
        ("ce", _) => Loss::CrossEntropy,
        ("kl", _) => Loss::Kl,
        ("lm", _) => Loss::Margin,
        ("slm", _) => Loss::SoftMargin,
        ("dlr", _) => Loss::Dlr,
        ("cw_batchsum", _) => Loss::CwBatchSum,
        ("cw_advertorch", _) => Loss::CwAdvertorch { kappa: 50.0 },
        (name, Some(kappa)) if name.starts_with("cw_zeromask") => Loss::CwZeroMask { kappa },
        (name, Some(kappa)) if name.starts_with("cw_k") => Loss::Cw { kappa },
        _ => return Err(NotBuilt(format!("the attack loss {name}"))),
    })
}

pub(super) fn check_fosc(case: &Case, dtype: DType) -> Result<(), NotBuilt> {
    let [x0, xk, gradient] = ["x0", "xk", "grad"].map(|name| case.input(name, dtype));
    let values = fosc(Norm::Linf, case.hyper("epsilon"), &x0, &xk, &gradient).unwrap();
    assert_near("fosc", &values, &case.result("fosc"), tolerance(dtype, 2e-5, 1e-9));
    Ok(())
}
