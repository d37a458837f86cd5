//! Square Attack against the authors' code.

use candle_core::DType;
use random::Stream;
use reference::{Case, NotBuilt, doubles};
use testing::{Net, assert_near, tolerance};

use super::draws::{Rows, Shared};
use super::recorded::{batch, count, integers, rows, threat};
use crate::survivors::{Examples, Survivors};
use crate::{Attack, BatchNorm, Probe, Queries, Square};

pub(super) fn check(case: &Case, dtype: DType) -> Result<(), NotBuilt> {
    let net = Net::read(&case.network(), "", dtype)?;
    check_schedule(case);
    check_replay(case, &net, dtype)?;
    if dtype == DType::F32 {
        check_accuracy(case, &net)?;
    }
    Ok(())
}

fn attack(case: &Case, queries: &str, rescale_schedule: bool) -> Square {
    Square {
        queries: count(case, queries),
        p_init: case.hyper("p_init"),
        rescale_schedule,
        ..Square::default()
    }
}

fn check_schedule(case: &Case) {
    let iterations = integers(case.raw("p_schedule_iterations"));
    for (name, rescale) in [("p_schedule_resc0", false), ("p_schedule_resc1", true)] {
        let square = attack(case, "n_queries", rescale);
        let shares = iterations.iter().map(|&query| square.side_share(query as u64));
        let shares: Vec<f64> = shares.collect();
        assert_eq!(shares, doubles(case.raw(name)), "{name}");
    }
}

/// The recorded run, with the authors' draws.
fn check_replay(case: &Case, net: &Net, dtype: DType) -> Result<(), NotBuilt> {
    let threat = threat(case)?;
    let batch = batch(case, "replay.", dtype);
    let examples = batch.ids.len();
    let mut probe = Probe::new(net, BatchNorm::Eval).unwrap();
    let examples_of_batch = Examples::new(&mut probe, &batch).unwrap();
    let mut survivors = Survivors::new(&examples_of_batch).unwrap();
    let correct: Vec<i64> = survivors.broken.iter().map(|&broken| i64::from(!broken)).collect();
    assert_eq!(correct, integers(case.raw("replay.clean_correct")));
    // Starts are recorded for the correct images alone.
    let recorded = Rows::read(&case.raw("replay.init_draw").unsqueeze(0).unwrap());
    let mut starts = vec![vec![0.0; recorded.0[0][0].len()]; examples];
    for (row, draws) in survivors.rows().into_iter().zip(&recorded.0[0]) {
        starts[row].clone_from(draws);
    }
    let [vertical, horizontal] = ["vh", "vw"].map(|name| doubles(case.raw(&format!("replay.{name}_draw"))));
    let signs = rows(case.raw("replay.sign_draw"));
    let moves = vertical.iter().zip(&horizontal).zip(&signs).map(|((v, h), signs)| {
        let signs = doubles(signs).into_iter().map(|sign| sign as f32);
        [*v as f32, *h as f32].into_iter().chain(signs).collect()
    });
    let mut queries = Queries::start(examples);
    attack(case, "replay_queries", false)
        .search(
            &mut probe,
            &examples_of_batch,
            &threat,
            &Rows(vec![starts]),
            &Shared(moves.collect()),
            &mut survivors,
            &mut queries,
        )
        .unwrap();
    assert_near(
        "x_adv",
        &survivors.images,
        &case.result("replay.x_adv"),
        tolerance(dtype, 1e-6, 1e-6),
    );
    let logits = probe.logits(&survivors.images).unwrap();
    assert_near("logits_adv", &logits, &case.result("replay.logits_adv"), 2e-5);
    // The start is a query as well.
    let most = queries.iter().map(|queries| queries.asked).max().unwrap();
    assert_eq!(most, case.meta["replay_queries_used"].as_u64().unwrap() + 1);
    Ok(())
}

/// The robust accuracy with draws of our own, against the authors' accuracies for several seeds.
fn check_accuracy(case: &Case, net: &Net) -> Result<(), NotBuilt> {
    let threat = threat(case)?;
    let batch = batch(case, "", DType::F32);
    let square = attack(case, "n_queries", false);
    let found = square.perturb(net, &batch, &threat, &Stream::new(0)).unwrap();
    let queries = found.queries.unwrap();
    let correct = queries
        .iter()
        .map(|queries| i64::from(queries.until_success != Some(0)));
    assert_eq!(correct.collect::<Vec<_>>(), integers(case.raw("clean_correct")));

    let robust = queries.iter().filter(|queries| queries.until_success.is_none()).count();
    let accuracy = robust as f64 / queries.len() as f64;
    let theirs = doubles(case.raw("robust_acc_seeds"));
    let mean = theirs.iter().sum::<f64>() / theirs.len() as f64;
    let allowed = accuracy_tolerance(mean, queries.len(), theirs.len());
    assert!(
        (accuracy - mean).abs() <= allowed,
        "{}: {accuracy} of {} images are robust, theirs {theirs:?}, allowed ±{allowed}",
        case.path.display(),
        queries.len()
    );
    Ok(())
}

/// How far the accuracy of one run on `images` images may deviate from the mean accuracy of `seeds` other runs.
///
/// Image i survives a run with a probability pᵢ of its own, so the accuracy of a run has the variance
/// Σ pᵢ(1 − pᵢ)/n² ≤ p(1 − p)/n, p the mean of the pᵢ. The bound is reached if every image survives with the same
/// probability. The difference from the mean of m runs has (1 + 1/m) times that variance. Most images are broken in
/// every run or in none: on 100 images the recorded accuracies deviate by about a third of the bound. So 1¼ of the
/// bound is about four standard deviations. p is estimated with one survivor and one broken image for each of two more
/// runs (Agresti and Coull 1998), which keeps the tolerance above 0 where all recorded accuracies are 0 or 1.
fn accuracy_tolerance(mean: f64, images: usize, seeds: usize) -> f64 {
    let (images, seeds) = (images as f64, seeds as f64);
    let p = (mean * images * seeds + 2.0) / (images * seeds + 4.0);
    1.25 * (p * (1.0 - p) / images * (1.0 + 1.0 / seeds)).sqrt()
}

#[test]
fn the_tolerance_of_an_accuracy_follows_from_images_and_seeds() {
    // p = 202/304: 1.25 · √(0.22294/100 · 4/3)
    let tolerance = accuracy_tolerance(2.0 / 3.0, 100, 3);
    assert!((tolerance - 0.068_15).abs() < 1e-5, "{tolerance}");
    assert!((accuracy_tolerance(2.0 / 3.0, 10_000, 3) - tolerance / 10.0).abs() < 1e-4);
    assert!(accuracy_tolerance(0.0, 100, 3) > 0.01);
}
