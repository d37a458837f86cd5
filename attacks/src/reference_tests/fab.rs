//! FAB and its projection against the authors' code.

use candle_core::DType;
use random::Stream;
use reference::{Case, NotBuilt, doubles};
use testing::{assert_near, tensor, tolerance};

use super::recorded::{Recorded, count, rows, threat};
use crate::fab::{Boundary, to_plane};
use crate::rows::select_rows;
use crate::survivors::{Examples, Survivors};
use crate::{Aim, BatchNorm, Fab, Norm, Probe};

pub(super) fn check(case: &Case, dtype: DType) -> Result<(), NotBuilt> {
    let recorded = Recorded::read(case, dtype)?;
    let threat = threat(case)?;
    let targets = count(case, "n_targets");
    let attack = Fab {
        steps: count(case, "n_iter"),
        aim: Some(Aim::Targets(targets)),
        ..Fab::default()
    };
    let mut probe = Probe::new(&recorded.net, BatchNorm::Eval).unwrap();
    let examples = Examples::new(&mut probe, &recorded.batch).unwrap();
    let mut survivors = Survivors::new(&examples).unwrap();
    let correct = survivors.rows();
    let part = examples.select(&correct).unwrap();
    let allowed = tolerance(dtype, 1e-5, 1e-6);
    let mut distances = Vec::new();
    for target in 0..targets as usize {
        let what = |name: &str| format!("{} {name} {target} {dtype:?}", case.path.display());
        let nearest = attack
            .approach(
                &mut probe,
                &part,
                Boundary::To(target + 1),
                threat.norm,
                &part.batch.images,
            )
            .unwrap();
        let mut row = vec![0.0; survivors.broken.len()];
        for (&place, &distance) in correct.iter().zip(&nearest.distances) {
            row[place] = if distance.is_finite() { distance } else { 0.0 };
        }
        distances.extend(row);
        let expected = case.result("single_target_x_adv").get(target).unwrap();
        let expected = select_rows(&expected, &correct).unwrap();
        // Recorded from the float32 run only.
        assert_near(&what("x_adv"), &nearest.images, &expected, 1e-5);
    }
    let what = format!("{} {dtype:?}", case.path.display());
    let distances = tensor(&distances, &[targets as usize, survivors.broken.len()]);
    assert_near(
        &format!("{what} norm"),
        &distances,
        &case.result("single_target_norm"),
        allowed,
    );

    attack
        .take(&mut probe, &examples, &threat, &Stream::new(0), &mut survivors)
        .unwrap();
    assert_near(
        &format!("{what} x_adv"),
        &survivors.images,
        &case.result("x_adv"),
        allowed,
    );
    recorded.check_logits(case, &survivors.images, tolerance(dtype, 2e-4, 1e-5));
    let robust = survivors.rows().len() as f64 / survivors.broken.len() as f64;
    assert!(
        (robust - case.meta["adv_acc"].as_f64().unwrap()).abs() < 1e-12,
        "{what}: {robust}"
    );
    Ok(())
}

pub(super) fn check_projection(case: &Case, dtype: DType) -> Result<(), NotBuilt> {
    let [points, normals] = ["t", "w"].map(|name| rows(&case.input(name, DType::F64)));
    for (name, norm) in [("d_linf", Norm::Linf), ("d_l2", Norm::L2)] {
        let expected = rows(&case.result(name));
        for (row, offset) in doubles(case.raw("b")).into_iter().enumerate() {
            let (point, normal) = (doubles(&points[row]), doubles(&normals[row]));
            let value = point.iter().zip(&normal).map(|(t, w)| t * w).sum::<f64>() - offset;
            let change = to_plane(norm, &point, &normal, value);
            let what = format!("{} {name}[{row}]", case.path.display());
            let change = tensor(&change, &[point.len()]);
            assert_near(&what, &change, &expected[row], tolerance(dtype, 1e-5, 1e-6));
        }
    }
    Ok(())
}
