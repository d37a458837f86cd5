//! Auto-PGD against the authors' code.

use candle_core::{DType, Tensor};
use reference::{Case, NotBuilt};
use testing::{assert_near, tensor, tolerance};

use super::draws::Rows;
use super::recorded::{Recorded, count, integers, threat};
use crate::apgd::Climb;
use crate::survivors::{Examples, Survivors};
use crate::{Apgd, BatchNorm, Loss, Probe};

pub(super) fn check(case: &Case, dtype: DType) -> Result<(), NotBuilt> {
    let recorded = Recorded::read(case, dtype)?;
    let threat = threat(case)?;
    let mut probe = Probe::new(&recorded.net, BatchNorm::Eval).unwrap();
    let examples = Examples::new(&mut probe, &recorded.batch).unwrap();
    let mut survivors = Survivors::new(&examples).unwrap();
    let draws = Rows::read(case.raw("start_draw"));
    let attack = Apgd {
        steps: count(case, "n_iter"),
        ..Apgd::default()
    };
    let kind = case.meta["hyper"]["kind"].as_str().unwrap();
    let runs = case.meta["runs"].as_u64().unwrap();
    if kind == "t" {
        assert_eq!(
            runs,
            count(case, "n_targets"),
            "{}: a run for each target",
            case.path.display()
        );
    }
    let allowed = tolerance(dtype, 1e-5, 1e-6);
    for run in 0..runs {
        let what = |name: &str| format!("{} run{run}.{name} {dtype:?}", case.path.display());
        let name = |name: &str| format!("run{run}.{name}");
        let loss = match kind {
            "ce" => Loss::CrossEntropy,
            "dlr" => Loss::Dlr,
            "t" => Loss::DlrTargeted { rank: run as usize + 1 },
            other => return Err(NotBuilt(format!("apgd on the loss {other}"))),
        };
        let standing = survivors.rows();
        let expected = integers(case.raw(&name("rows")));
        assert_eq!(
            standing,
            expected.iter().map(|&row| row as usize).collect::<Vec<_>>(),
            "{}",
            what("rows")
        );
        if kind == "t" {
            let part = examples.select(&standing).unwrap();
            let target = crate::loss::wrong_class(&part.clean_logits, &part.batch.labels, run as usize + 1).unwrap();
            assert_eq!(
                integers(&target),
                integers(case.raw(&name("target"))),
                "{}",
                what("target")
            );
        }
        let (mut points, mut step_sizes) = (Vec::new(), Vec::new());
        let climb = attack
            .run(
                &mut probe,
                &examples,
                &threat,
                loss,
                run,
                &draws,
                &mut survivors,
                &mut |images, steps| {
                    points.push(images.clone());
                    step_sizes.push(tensor(steps, &[steps.len()]));
                    Ok(())
                },
            )
            .unwrap()
            .unwrap();
        check_run(case, &what, &name, (&points, &step_sizes), &climb, dtype);
        let still: Vec<i64> = climb.broken.iter().map(|&broken| i64::from(!broken)).collect();
        assert_eq!(
            still,
            integers(case.raw(&name("still_correct"))),
            "{}",
            what("still_correct")
        );
    }
    let what = format!("{} x_adv {dtype:?}", case.path.display());
    assert_near(&what, &survivors.images, &case.result("x_adv"), allowed);
    recorded.check_logits(case, &survivors.images, tolerance(dtype, 2e-5, 1e-6));
    let robust = survivors.rows().len() as f64 / survivors.broken.len() as f64;
    assert!(
        (robust - case.meta["adv_acc"].as_f64().unwrap()).abs() < 1e-12,
        "{what}: {robust}"
    );
    Ok(())
}

/// The points, step sizes and best losses of one run.
fn check_run(
    case: &Case,
    what: &dyn Fn(&str) -> String,
    name: &dyn Fn(&str) -> String,
    (points, step_sizes): (&[Tensor], &[Tensor]),
    climb: &Climb,
    dtype: DType,
) {
    // The first of the points is the start, which no step reached.
    let step_sizes = Tensor::stack(&step_sizes[1..], 0).unwrap();
    assert_near(&what("step_size"), &step_sizes, &case.result(&name("step_size")), 1e-12);
    if case.has(&name("iterates.f32")) {
        // Recorded from the float32 run only.
        let points = Tensor::stack(points, 0).unwrap();
        assert_near(&what("iterates"), &points, &case.result(&name("iterates")), 1e-5);
    }
    let losses = tensor(&climb.best_losses, &[climb.best_losses.len()]);
    assert_near(
        &what("loss_best"),
        &losses,
        &case.result(&name("loss_best")),
        tolerance(dtype, 2e-5, 1e-6),
    );
    assert_near(
        &what("x_best"),
        &climb.best,
        &case.result(&name("x_best")),
        tolerance(dtype, 1e-5, 1e-6),
    );
}
