//! Every attack and attack loss against the authors' code, in both precisions.

mod apgd;
mod draws;
mod fab;
mod inner;
mod l2;
mod linf;
mod losses;
mod recorded;
mod square;

use candle_core::{DType, Device, Tensor};
use models::{Classifier, Mode};
use reference::{Case, NotBuilt, doubles};
use testing::{BOTH, Net};

#[test]
fn reference_attacks() {
    reference::run("attacks", &[], |case| {
        for dtype in BOTH {
            match case.kind() {
                "attack_network" => check_network(case, dtype),
                "attack_linf" => linf::check(case, dtype),
                "attack_l2_pgd" => l2::check_pgd(case, dtype),
                "attack_l2_trades" => l2::check_trades(case, dtype),
                "attack_anpgd" => inner::check_an_pgd(case, dtype),
                "attack_fosc" => inner::check_fosc(case, dtype),
                "attack_apgd" => apgd::check(case, dtype),
                "attack_fab_t" => fab::check(case, dtype),
                "fab_projection" => fab::check_projection(case, dtype),
                "attack_square" => square::check(case, dtype),
                _ => Err(case.unknown_kind()),
            }?;
        }
        Ok(())
    });
}

#[test]
fn reference_attack_losses() {
    reference::run("losses", &["losses_mma"], |case| {
        for dtype in BOTH {
            match case.kind() {
                "losses_pair" => losses::check_pair(case, dtype),
                "losses_fosc" => losses::check_fosc(case, dtype),
                _ => Err(case.unknown_kind()),
            }?;
        }
        Ok(())
    });
}

fn check_network(case: &Case, dtype: DType) -> Result<(), NotBuilt> {
    let net = Net::read(case, "", dtype)?;
    let shape = ["cin", "hw", "hw"].map(|name| case.meta["net"][name].as_u64().unwrap() as usize);
    let images = Tensor::zeros((2, shape[0], shape[1], shape[2]), dtype, &Device::Cpu).unwrap();
    let logits = net.logits(&images, Mode::Eval).unwrap();
    assert_eq!(logits.dims(), [2, net.classes()]);
    assert!(doubles(&logits).iter().all(|value| value.is_finite()));
    Ok(())
}
