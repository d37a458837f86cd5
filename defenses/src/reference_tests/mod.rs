//! Every training loss, and three training steps of every defense, against the authors' code, in both precisions.

mod losses;
mod training;

use testing::BOTH;

#[test]
fn reference_training_losses() {
    reference::run("losses", &["losses_fosc"], |case| {
        for dtype in BOTH {
            match case.kind() {
                "losses_pair" => losses::check_pair(case, dtype)?,
                "losses_mma" => losses::check_mma(case, dtype),
                _ => return Err(case.unknown_kind()),
            }
        }
        Ok(())
    });
}

#[test]
fn reference_training() {
    reference::run("training", &[], |case| {
        for dtype in BOTH {
            match case.kind() {
                "training" => training::check(case, dtype)?,
                _ => return Err(case.unknown_kind()),
            }
        }
        Ok(())
    });
}
